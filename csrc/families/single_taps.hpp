// An axis on which every output has at most one tap.
#pragma once

#include <cstdint>

#include "convt/axis.hpp"

namespace convt {

// By residues of o + padding modulo the stride. `residues` has a nibble for each: tap t's at place
// t, then those without a tap, ascending. Output o takes tap k of input
// (o + padding - k * dilation) / stride, which `halo` is the most that lies before
// (o + padding) / stride; an output without a tap belongs to the latter. All outputs belong to
// inputs [first, first + span), some of them outside the image. `empty` has a bit per residue that
// no tap has, the first again after the last; `joined` two bits per tap: the residues before and
// after its own have taps too.
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
