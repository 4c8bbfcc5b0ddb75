#include "dispatch/aten.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "dispatch/aten_fit.hpp"

namespace convt {
namespace {

double log2(std::int64_t number) noexcept { return std::log2(static_cast<double>(number)); }

}  // namespace

std::array<double, kAtenFeatures> aten_features(const Problem& p, const Gpu& gpu) noexcept {
  constexpr double kWideGroup = 6;  // log2 of the channels that fill a tile of cuDNN's
  constexpr std::int64_t kVector = 8;
  const bool is_odd = p.group_in() % kVector != 0 || p.group_out() % kVector != 0;
  const bool is_volume = p.d.in > 1 || p.d.kernel > 1;
  return {1,
          std::log(gpu.memory_us(static_cast<double>(p.min_bytes()))),
          std::log(gpu.math_us(p.flops(), p.math)),
          std::max(0.0, kWideGroup - log2(p.group_in())),
          std::max(0.0, kWideGroup - log2(p.group_out())),
          log2(p.groups),
          log2(p.d.stride * p.h.stride * p.w.stride),
          log2(p.taps()),
          is_odd ? 1.0 : 0.0,
          log2(p.d.dilation * p.h.dilation * p.w.dilation),
          p.h.in == 1 ? 1.0 : 0.0,
          is_volume ? 1.0 : 0.0,
          is_volume ? log2(p.groups) : 0.0};
}

double aten_us(const Problem& problem, const Gpu& gpu) noexcept {
  if (gpu.bandwidth == 0 || problem.min_bytes() == 0) return kAtenLaunchUs;
  const std::array<double, kAtenFeatures> features = aten_features(problem, gpu);
  const auto& weights = kAtenFit[problem.element_bytes() == 2][problem.layout == Layout::nhwc];
  const double sum = std::inner_product(features.begin(), features.end(), weights.begin(), 0.0);
  return std::max(kAtenLaunchUs + std::exp(sum),
                  gpu.memory_us(static_cast<double>(problem.min_bytes())));
}

}  // namespace convt
