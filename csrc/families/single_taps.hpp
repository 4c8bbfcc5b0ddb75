// An axis on which every output has at most one tap.
#pragma once

#include <cstdint>

#include "convt/axis.hpp"

namespace convt {

// Output o has the residue (o + padding) modulo stride. If a tap k has this residue, the output is
// a product with input (o + padding - k * dilation) / stride; if none has, it is only bias and
// belongs to input (o + padding) / stride.
//   residues  a nibble for each residue: that of tap t at place t, then those without a tap,
//             ascending
//   empty     a bit for each residue, set if no tap has it; the first residue again after the last
//   joined    two bits for each tap: whether the residues before and after its own have taps
//   halo      the most inputs by which a tap's input lies before (o + padding) / stride
//   first     outputs belong to inputs [first, first + span), some of them outside the image
struct SingleTaps {
  std::int64_t residues = 0;
  std::int64_t empty = 0;
  std::int64_t joined = 0;
  std::int64_t halo = 0;
  std::int64_t first = 0;
  std::int64_t span = 0;
};

// Needs axis.has_one_tap() and a stride of at most 16.
SingleTaps single_taps(const Axis& axis) noexcept;

}  // namespace convt
