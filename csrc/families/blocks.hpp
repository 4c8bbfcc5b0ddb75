// Shared by the families for kernel == stride without padding.
#pragma once

#include "families/family.hpp"

namespace convt {

inline constexpr const char* kBlocksReason =
    "kernel == stride: one matrix product a kernel row, stored as it is";

// Null if the problem has that layout and each input pixel makes a block of outputs of its own.
inline const char* not_blocks(const Problem& problem, Layout layout) noexcept {
  if (const char* why = other_layout(problem, layout)) return why;
  if (!is_blocks(problem.d) || !is_blocks(problem.h) || !is_blocks(problem.w))
    return "outputs are not blocks of one input each";
  return too_large(problem);
}

// Of an input channel.
inline std::int64_t pixels(const Problem& problem) noexcept {
  return problem.d.in * problem.h.in * problem.w.in;
}

// Of the kernel, each a product of its own.
inline std::int64_t kernel_rows(const Problem& problem) noexcept {
  return problem.d.kernel * problem.h.kernel;
}

// Whether channels of the input begin on 16-byte boundaries.
inline bool pixel_vectors_fit(const Problem& problem) noexcept {
  return problem.aligned && pixels(problem) % lanes(problem) == 0;
}

// Whether the offsets of a program fit 32 bits, if it handles so many input and output channels.
inline bool planes_fit(const Problem& problem, std::int64_t in, std::int64_t out) noexcept {
  return product(in + 1, pixels(problem)) <= kInt32 &&
         product(out + 1, pixels(problem), problem.taps()) <= kInt32;
}

}  // namespace convt
