// Shared by the families for at most one tap per output and axis.
#pragma once

#include <algorithm>

#include "families/family.hpp"
#include "families/single_taps.hpp"

namespace convt {

inline constexpr const char* kOneTapReason =
    "at most one tap per output: stored in whole pieces of rows";

// Null if the problem has that layout and every output at most one tap; along the depth just one,
// in blocks.
inline const char* several_taps(const Problem& problem, Layout layout) noexcept {
  if (const char* why = other_layout(problem, layout)) return why;
  if (std::max(problem.h.stride, problem.w.stride) > 16) return "a stride is over 16";
  if (!problem.h.has_one_tap() || !problem.w.has_one_tap()) return "an output has several taps";
  if (!is_blocks(problem.d)) return "slices of the output are not blocks of one input slice each";
  return too_large(problem);
}

// The part of the outputs that have a tap.
inline double tapped(const Problem& problem) noexcept {
  return static_cast<double>(problem.taps()) /
         product(problem.d.stride, problem.h.stride, problem.w.stride);
}

// A GPU as the programs of one variant see it.
struct Machine {
  int multiprocessors = 0;
  std::int64_t resident = 0;  // programs that run at once
};

inline Machine machine(const Config& config, const Gpu& gpu) noexcept {
  const Image& image = *config.variant->image(gpu.image.arch, gpu.image.kind);
  return {.multiprocessors = gpu.multiprocessors,
          .resident = gpu.resident(image, config.variant->warps)};
}

}  // namespace convt
