#include "arguments.hpp"

#include <algorithm>
#include <limits>
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

std::int64_t floor_div(std::int64_t a, std::int64_t b) noexcept {
  return a / b - (a % b < 0 ? 1 : 0);
}

}  // namespace

Axis phases(std::int64_t out, std::int64_t stride, std::int64_t dilation) noexcept {
  const std::int64_t gcd = std::gcd(stride, dilation);
  const std::int64_t period = stride / gcd, shift = dilation / gcd;
  return {gcd, period, inverse_modulo(shift, period), shift, (out + stride - 1) / stride};
}

SingleTaps single_taps(std::int64_t out, std::int64_t kernel, std::int64_t stride,
                       std::int64_t padding, std::int64_t dilation) noexcept {
  const Axis axis = phases(out, stride, dilation);
  // From the kernel's size on: no tap.
  const auto tap_of = [&](std::int64_t residue) {
    residue %= stride;
    return residue % axis.gcd == 0 ? residue / axis.gcd * axis.inverse % axis.period : kernel;
  };
  const auto has_tap = [&](std::int64_t residue) { return tap_of(residue) < kernel; };
  SingleTaps taps;
  std::uint64_t residues = 0;
  std::int64_t place = std::min(kernel, axis.period);  // of the next residue without a tap
  std::int64_t first = std::numeric_limits<std::int64_t>::max();
  std::int64_t last = std::numeric_limits<std::int64_t>::min();
  for (std::int64_t residue = 0; residue < stride; ++residue) {
    const std::int64_t tap = tap_of(residue);
    const std::int64_t reach = has_tap(residue) ? tap * dilation : residue;
    if (has_tap(residue)) {
      const bool before = has_tap(residue + stride - 1), after = has_tap(residue + 1);
      taps.joined |= static_cast<std::int64_t>(before | after << 1) << 2 * tap;
      taps.halo = std::max(taps.halo, reach / stride);
    }
    residues |= static_cast<std::uint64_t>(residue) << 4 * (has_tap(residue) ? tap : place++);
    first = std::min(first, floor_div(padding - reach + stride - 1, stride));
    last = std::max(last, floor_div(out - 1 + padding - reach, stride));
  }
  for (std::int64_t residue = 0; residue <= stride; ++residue)
    if (!has_tap(residue)) taps.empty |= std::int64_t{1} << residue;
  taps.residues = static_cast<std::int64_t>(residues);
  taps.first = first, taps.span = last - first + 1;
  return taps;
}

Arguments arguments(const Problem& problem) noexcept {
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
  if (std::max(g.stride.h, g.stride.w) <= 16) {
    const SingleTaps th =
        single_taps(out.h, problem.kernel.h, g.stride.h, g.padding.h, g.dilation.h);
    const SingleTaps tw =
        single_taps(out.w, problem.kernel.w, g.stride.w, g.padding.w, g.dilation.w);
    set(Param::residues_h, th.residues);
    set(Param::residues_w, tw.residues);
    set(Param::empty_h, th.empty);
    set(Param::empty_w, tw.empty);
    set(Param::joined_h, th.joined);
    set(Param::first_h, th.first);
    set(Param::span_h, th.span);
    set(Param::first_w, tw.first);
    set(Param::span_w, tw.span);
    set(Param::halo_w, tw.halo);
  }
  return values;
}

}  // namespace convt
