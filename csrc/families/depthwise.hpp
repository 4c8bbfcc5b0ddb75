// Shared by the two families for few channels a group; see aot/kernels/taps.py.
#pragma once

#include <numeric>

#include "families/divisor.hpp"
#include "families/family.hpp"

namespace convt::depthwise {

inline constexpr const char* kReason = "few channels a group: multiply-adds without tensor cores";

// Null if the problem has few channels a group, in that layout, and sizes that both kernels count.
inline const char* unsupported(const Problem& problem, Layout layout) noexcept {
  if (const char* why = other_layout(problem, layout)) return why;
  if (product(problem.group_in(), problem.group_out()) > 8) return "it has many channels a group";
  // The kernels multiply residues and inverses, both under the stride, in 32 bits.
  if (std::max({problem.d.stride, problem.h.stride, problem.w.stride}) > 32768)
    return "a stride is over 32768";
  return too_large(problem);
}

// How a program walks along an axis. Outputs that lie one dilation apart share inputs: a program
// computes several of them at once, which make one place. Places that lie `period` outputs and
// `pace` inputs apart have the same taps and make a kind. There are `places` kinds, each of
// `quotients` places, and the first place of a kind begins at output `first_out`.
struct Walk {
  std::int64_t period = 1, pace = 1, places = 1, first_out = 0, first_in = 0, quotients = 1;
};

inline Walk walk(const Axis& axis, std::int64_t outputs) noexcept {
  const std::int64_t period =
      outputs == 1 ? axis.stride : std::lcm(axis.stride, outputs * axis.dilation);
  const std::int64_t first = axis.padding / period;
  return {.period = period,
          .pace = period / axis.stride,
          .places = period / outputs,
          .first_out = first * period - axis.padding,
          .first_in = first * (period / axis.stride),
          .quotients = (axis.out() - 1 + axis.padding) / period - first + 1};
}

// How programs cover `rows` x `columns`: tiles of tile_h x tile_w, `rounds` of them below each
// other.
struct Tiling {
  std::int64_t tile_h = 1, tile_w = 1, rounds = 1, programs_h = 1, programs_w = 1;
  double tiles() const noexcept { return product(programs_h, rounds, programs_w); }
};

// Tiles have at most `threads` pixels each; of the shapes with the fewest tiles the widest is
// taken. The rounds double, up to `most`, while at least `wanted` programs are left; `times` planes
// have such programs.
inline Tiling tiling(std::int64_t threads, std::int64_t rows, std::int64_t columns,
                     std::int64_t most, double times, double wanted) noexcept {
  Tiling best;
  double fewest = std::numeric_limits<double>::max();
  for (std::int64_t w = 1; w <= std::min(threads, columns); ++w) {
    const std::int64_t h = std::min(threads / w, rows);
    const double tiles = product(cdiv(columns, w), cdiv(rows, h));
    if (tiles <= fewest) fewest = tiles, best.tile_h = h, best.tile_w = w;
  }
  best.programs_w = cdiv(columns, best.tile_w);
  const auto programs_h = [&](std::int64_t rounds) { return cdiv(rows, best.tile_h * rounds); };
  while (2 * best.rounds <= most && best.rounds * best.tile_h < rows &&
         product(programs_h(2 * best.rounds), best.programs_w) * times >= wanted)
    best.rounds *= 2;
  best.programs_h = programs_h(best.rounds);
  return best;
}

// The average number of multiply-adds an output.
inline double taps(const Problem& problem) noexcept {
  return product(problem.taps(), problem.group_in()) /
         product(problem.d.stride, problem.h.stride, problem.w.stride);
}

// us = launch + memory + of_a_million * outputs / 10^6, the last scaled from an H200 to `gpu`.
// `outputs` counts what all threads compute, stored or not. Work and memory add up because each
// program waits for its own loads.
inline double microseconds(const Problem& problem, const Gpu& gpu, double outputs,
                           double of_a_million) noexcept {
  constexpr double kMultiprocessors = 132;
  const double work = of_a_million * outputs * 1e-6 * kMultiprocessors / gpu.multiprocessors;
  return kLaunchUs + memory_us(problem, gpu) + clock_us(work, gpu);
}

}  // namespace convt::depthwise
