// The vocabulary of kernel parameters, as numbers of a problem.
#pragma once

#include <cstdint>

#include "convt/plan.hpp"

namespace convt {

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

// An axis on which every output has at most one tap, by residues of o + padding modulo the stride.
// `residues` has a nibble for each: tap t's at place t, then those without a tap, ascending. Output
// o takes tap k of input (o + padding - k * dilation) / stride, which `halo` is the most that lies
// before (o + padding) / stride; an output without a tap belongs to the latter. All outputs belong
// to inputs [first, first + span), some of them outside the image. `empty` has a bit per residue
// that no tap has, the first again after the last; `joined` two bits per tap: the residues before
// and after its own have taps too.
struct SingleTaps {
  std::int64_t residues = 0;
  std::int64_t empty = 0;
  std::int64_t joined = 0;
  std::int64_t halo = 0;
  std::int64_t first = 0;
  std::int64_t span = 0;
};

// Needs kernel <= stride / gcd(stride, dilation) and stride <= 16.
SingleTaps single_taps(std::int64_t out, std::int64_t kernel, std::int64_t stride,
                       std::int64_t padding, std::int64_t dilation) noexcept;

// Every parameter that the problem alone decides.
Arguments arguments(const Problem& problem) noexcept;

}  // namespace convt
