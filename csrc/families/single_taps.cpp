#include "families/single_taps.hpp"

#include <algorithm>
#include <limits>

namespace convt {
namespace {

std::int64_t floor_div(std::int64_t a, std::int64_t b) noexcept {
  return a / b - (a % b < 0 ? 1 : 0);
}

}  // namespace

SingleTaps single_taps(const Axis& axis) noexcept {
  const std::int64_t kernel = axis.kernel, stride = axis.stride, padding = axis.padding;
  const std::int64_t dilation = axis.dilation;
  const Phases phases = axis.phases();
  const std::int64_t gcd = phases.gcd, period = phases.period, inverse = phases.inverse;
  const std::int64_t out = axis.out();
  // From the kernel's size on: no tap.
  const auto tap_of = [&](std::int64_t residue) {
    residue %= stride;
    return residue % gcd == 0 ? residue / gcd * inverse % period : kernel;
  };
  const auto has_tap = [&](std::int64_t residue) { return tap_of(residue) < kernel; };
  SingleTaps taps;
  std::uint64_t residues = 0;
  std::int64_t place = std::min(kernel, period);  // of the next residue without a tap
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

}  // namespace convt
