// The vocabulary of kernel parameters, as numbers of a problem.
#pragma once

#include <cstdint>

#include "convt/plan.hpp"

namespace convt {

// A program's pixels: a box of 2^log2_h x 2^log2_w quotients (outputs of one phase), and as many
// images as are left.
struct Box {
  int log2_h = 0;
  int log2_w = 0;
};

// How the outputs of one axis fall into phases. gcd = gcd(stride, dilation); taps of a phase are
// `period` apart and `shift` inputs apart; `inverse` is (dilation / gcd)^-1 modulo period;
// `quotients` is the largest number of outputs of a phase.
struct Axis {
  std::int64_t gcd;
  std::int64_t period;
  std::int64_t inverse;
  std::int64_t shift;
  std::int64_t quotients;
};

Axis phases(std::int64_t out, std::int64_t stride, std::int64_t dilation) noexcept;

// Every parameter's value; the box is zero for families that have none.
Arguments arguments(const Problem& problem, const Box& box) noexcept;

}  // namespace convt
