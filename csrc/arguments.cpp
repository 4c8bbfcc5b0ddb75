#include "arguments.hpp"

#include <numeric>

namespace convt {
namespace {

// a^-1 modulo m for coprime a and m, by Euclid's algorithm; 0 when m is 1.
std::int64_t inverse_modulo(std::int64_t a, std::int64_t m) noexcept {
  std::int64_t r0 = m, r1 = a % m, t0 = 0, t1 = 1;
  while (r1 > 1) {
    const std::int64_t q = r0 / r1;
    const std::int64_t r2 = r0 - q * r1, t2 = t0 - q * t1;
    r0 = r1, r1 = r2, t0 = t1, t1 = t2;
  }
  if (m == 1) return 0;
  return t1 < 0 ? t1 + m : t1;
}

}  // namespace

Axis phases(std::int64_t out, std::int64_t stride, std::int64_t dilation) noexcept {
  const std::int64_t gcd = std::gcd(stride, dilation);
  const std::int64_t period = stride / gcd, shift = dilation / gcd;
  return {gcd, period, inverse_modulo(shift, period), shift, (out + stride - 1) / stride};
}

Arguments arguments(const Problem& problem, const Box& box) noexcept {
  const Geometry& g = problem.geometry;
  const Pair out = problem.out();
  const Axis h = phases(out.h, g.stride.h, g.dilation.h);
  const Axis w = phases(out.w, g.stride.w, g.dilation.w);
  const bool channels_last = problem.layout == Layout::nhwc;

  Arguments values{};
  const auto set = [&](Param param, std::int64_t value) {
    values[static_cast<std::size_t>(param)] = value;
  };
  set(Param::has_bias, problem.bias);
  set(Param::batch, problem.batch);
  set(Param::groups, g.groups);
  set(Param::group_in, problem.group_in());
  set(Param::group_out, problem.group_out());
  set(Param::in_h, problem.in.h);
  set(Param::in_w, problem.in.w);
  set(Param::out_h, out.h);
  set(Param::out_w, out.w);
  set(Param::kernel_h, problem.kernel.h);
  set(Param::kernel_w, problem.kernel.w);
  const std::int64_t c_in = problem.in_channels, c_out = problem.out_channels;
  set(Param::x_n, c_in * problem.in.h * problem.in.w);
  set(Param::x_c, channels_last ? 1 : problem.in.h * problem.in.w);
  set(Param::x_h, channels_last ? problem.in.w * c_in : problem.in.w);
  set(Param::x_w, channels_last ? c_in : 1);
  set(Param::y_n, c_out * out.h * out.w);
  set(Param::y_c, channels_last ? 1 : out.h * out.w);
  set(Param::y_h, channels_last ? out.w * c_out : out.w);
  set(Param::y_w, channels_last ? c_out : 1);
  set(Param::stride_h, g.stride.h);
  set(Param::stride_w, g.stride.w);
  set(Param::padding_h, g.padding.h);
  set(Param::padding_w, g.padding.w);
  set(Param::dilation_h, g.dilation.h);
  set(Param::dilation_w, g.dilation.w);
  set(Param::gcd_h, h.gcd);
  set(Param::gcd_w, w.gcd);
  set(Param::tap_period_h, h.period);
  set(Param::tap_period_w, w.period);
  set(Param::tap_inverse_h, h.inverse);
  set(Param::tap_inverse_w, w.inverse);
  set(Param::tap_shift_h, h.shift);
  set(Param::tap_shift_w, w.shift);
  set(Param::quotients_h, h.quotients);
  set(Param::quotients_w, w.quotients);
  set(Param::log2_tile_h, box.log2_h);
  set(Param::log2_tile_w, box.log2_w);
  return values;
}

}  // namespace convt
