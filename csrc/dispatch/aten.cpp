#include "dispatch/aten.hpp"

#include "families/family.hpp"

namespace convt {
namespace {

// aten = start + memory * (bytes / bandwidth) + math * (padded flops / rate), fitted to
// cuDNN 9.19's times of 168 layers in two layouts on an H200 (benchmarks/results/zoo_h200.json):
// half of the layers are within 30 %. cuDNN rounds channels of a group up to its tiles, and
// transposes contiguous tensors before and after.
struct Fit {
  double start, memory, math;
};

Fit fit_of(const Problem& problem) noexcept {
  const bool contiguous = problem.layout == Layout::nchw;
  constexpr std::int64_t kFewOutputs = 4;
  if (problem.groups > 1 && problem.group_in() == 1) return {3.4, contiguous ? 9.0 : 14.0, 0};
  if (problem.groups > 1) return {contiguous ? 50.0 : 110.0, 10.0, 0};
  if (problem.out_channels <= kFewOutputs) return {11.5, 7.0, 0.27};
  return contiguous ? Fit{14, 3.7, 2.26} : Fit{10.4, 2.4, 1.35};
}

}  // namespace

double aten_us(const Problem& problem, const Gpu& gpu) noexcept {
  const Fit fit = fit_of(problem);
  const double padded =
      product(cdiv(problem.group_in(), 32) * 32, cdiv(problem.group_out(), 64) * 64) /
      product(problem.group_in(), problem.group_out());
  return fit.start + fit.memory * gpu.memory_us(static_cast<double>(problem.min_bytes())) +
         fit.math * gpu.math_us(problem.flops() * padded, problem.math);
}

}  // namespace convt
