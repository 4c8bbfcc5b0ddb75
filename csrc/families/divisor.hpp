// Division by numbers that the planner knows.
#pragma once

#include <bit>
#include <cstdint>

#include "families/family.hpp"

namespace convt {

// The argument of the kernels' `divided`: n // d is a product and a shift, for 0 <= n < 2^31.
inline std::int64_t divisor(std::int64_t d) noexcept {
  const int log2 = std::bit_width(static_cast<std::uint64_t>(d - 1));  // rounded up
  const std::uint64_t magic = static_cast<std::uint64_t>(cdiv(std::int64_t{1} << (31 + log2), d));
  return static_cast<std::int64_t>(magic << 32 | static_cast<std::uint64_t>(log2));
}

}  // namespace convt
