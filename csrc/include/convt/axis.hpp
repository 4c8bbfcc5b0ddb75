// One spatial axis of a transposed convolution.
#pragma once

#include <cstdint>
#include <numeric>

#include "convt/export.hpp"

namespace convt {

// How the outputs of an axis fall into phases: output o belongs to phase (o + padding) modulo
// stride. gcd = gcd(stride, dilation); only phases that gcd divides have taps, `period` apart and
// `shift` inputs apart; `inverse` is (dilation / gcd)^-1 modulo period; `quotients` is the largest
// number of outputs of a phase.
struct Phases {
  std::int64_t gcd;
  std::int64_t period;
  std::int64_t inverse;
  std::int64_t shift;
  std::int64_t quotients;
};

// Output o takes tap k of input i where o + padding = i * stride + k * dilation.
struct Axis {
  std::int64_t in = 1;
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t output_padding = 0;
  std::int64_t dilation = 1;

  bool operator==(const Axis&) const = default;

  // torch's formula.
  std::int64_t out() const noexcept {
    return (in - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1;
  }
  CONVT_EXPORT Phases phases() const noexcept;
  // Taps of the phase that has the most: ceil(kernel * gcd / stride).
  std::int64_t most_taps() const noexcept {
    const std::int64_t period = stride / std::gcd(stride, dilation);
    return (kernel + period - 1) / period;
  }
  // Whether each output is computed from at most one input.
  bool has_one_tap() const noexcept { return most_taps() == 1; }
};

}  // namespace convt
