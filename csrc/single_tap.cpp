// The families for at most one tap per output and axis; see aot/kernels/single_tap_*.py.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "arguments.hpp"
#include "families.hpp"

namespace convt {
namespace {

const char* unsupported(const Problem& problem, Layout layout) noexcept {
  const Geometry& g = problem.geometry;
  if (problem.layout != layout) return "it has another memory layout";
  if (std::max(g.stride.h, g.stride.w) > 16) return "a stride is over 16";
  if (problem.kernel.h * std::gcd(g.stride.h, g.dilation.h) > g.stride.h ||
      problem.kernel.w * std::gcd(g.stride.w, g.dilation.w) > g.stride.w)
    return "an output has several taps";
  return too_large(problem);
}

const char* unsupported_nchw(const Problem& problem) noexcept {
  return unsupported(problem, Layout::nchw);
}

const char* unsupported_nhwc(const Problem& problem) noexcept {
  return unsupported(problem, Layout::nhwc);
}

SingleTaps across(const Problem& problem) noexcept {
  const Geometry& g = problem.geometry;
  return single_taps(problem.out().w, problem.kernel.w, g.stride.w, g.padding.w, g.dilation.w);
}

SingleTaps down(const Problem& problem) noexcept {
  const Geometry& g = problem.geometry;
  return single_taps(problem.out().h, problem.kernel.h, g.stride.h, g.padding.h, g.dilation.h);
}

// Columns by which a tap may reach over its pixel's own in the shared image: each variant's rows
// are that far apart, and a sector more.
constexpr std::int64_t kReach = 48;

// `tiles_w` programs take `tile_w` columns each of an input row, from `first` on, a multiple of
// `step`. What outputs would ask of columns outside the image is bias, as far as a tap's reach, and
// needs no program. No programs where the shared image has no room.
struct Columns {
  std::int64_t first, tile_w, tiles_w;
};

Columns columns(const Problem& problem, std::int64_t pixels, std::int64_t sector,
                std::int64_t step) noexcept {
  const std::int64_t stride = problem.geometry.stride.w;
  const SingleTaps taps = across(problem);
  if (taps.halo * stride > kReach) return {};
  const std::int64_t first = std::max<std::int64_t>(taps.first, 0);
  const std::int64_t image_end = std::min(taps.first + taps.span, problem.in.w);
  const std::int64_t reach_end =
      cdiv(problem.out().w + problem.geometry.padding.w, stride) - taps.halo;
  const std::int64_t span = std::max({image_end, reach_end, first + 1}) - first;
  if (span <= pixels) return {first, pixels, 1};
  // A program shares sectors with the next, and needs the pixels under them.
  const std::int64_t tile_w = (pixels - taps.halo - cdiv(sector - 1, stride)) / step * step;
  return {first, tile_w, tile_w > 0 ? cdiv(span, tile_w) : 0};
}

// Channel tiles of a program: it gets its input once for all, in pairs for less. Where few outputs
// have taps that is little, memory is busy anyway, and short programs write closer together.
// `others`: programs for each tile.
std::int64_t channel_tiles(const Variant& variant, const Problem& problem, std::int64_t out_tiles,
                           double others, const Room& room) noexcept {
  const Pair stride = problem.geometry.stride;
  const auto programs = [&](std::int64_t tiles) { return product(others, cdiv(out_tiles, tiles)); };
  std::int64_t tiles =
      (variant.aligned ? 3 : 4) * problem.kernel.h * problem.kernel.w / (stride.h * stride.w);
  tiles = std::clamp<std::int64_t>(tiles, 1, out_tiles);
  while (tiles > 1 && programs(tiles) < 4.0 * room.sms) --tiles;
  // One tile more where that saves a second, emptier wave.
  const double resident = static_cast<double>(room.resident);
  return tiles + (programs(tiles) > resident && programs(tiles + 1) <= resident);
}

Candidate candidate_nchw(const Variant& variant, const Problem& problem,
                         const Room& room) noexcept {
  const Pair in = problem.in, out = problem.out();
  const std::int64_t stride = problem.geometry.stride.w;
  const std::int64_t sector = variant.vector;  // outputs
  // An aligned variant copies 16-bit numbers in pairs.
  const std::int64_t pair = variant.aligned ? 2 : 1;
  const auto [first, tile_w, tiles_w] = columns(problem, variant.block_pixels, sector, pair);
  // Planes of channels so far apart begin alike in a sector.
  const std::int64_t step = sector / std::gcd(sector, out.h * out.w);
  const std::int64_t channels = variant.block_out * step;
  if ((variant.aligned && (!problem.aligned || in.w % pair != 0 || first % pair != 0)) ||
      variant.stride != stride || variant.block_taps < problem.kernel.w || tiles_w == 0 ||
      !weight_fits(variant, problem) ||
      out.w < sector ||  // a sector may belong to two rows, not to three
      // Offsets in a program are 32-bit.
      product(channels + 1, out.h, out.w) > kInt32 ||
      product(variant.block_in + 1, in.h, in.w) > kInt32)
    return {};
  const std::int64_t before = (problem.group_out() - 1) / channels;
  const std::int64_t out_tiles =
      before * step + std::min(step, problem.group_out() - before * channels);
  const std::int64_t x = tiles_w * down(problem).span, z = problem.batch * problem.geometry.groups;
  const std::int64_t tiles = channel_tiles(variant, problem, out_tiles, product(x, z), room);
  const std::int64_t y = cdiv(out_tiles, tiles);
  if (x > kInt32 || std::max(y, z) > kGridLayers) return {};
  const double waves = std::ceil(product(x, y, z) / room.sms);
  return {&variant,
          x,
          waves * static_cast<double>(tiles) * (variant.block_pixels + variant.block_in) *
              (16 + variant.block_taps) * (variant.aligned ? 1.0 : 1.25),
          {{{Param::first_w, first},
            {Param::tile_w, tile_w},
            {Param::tiles_w, tiles_w},
            {Param::log2_step, std::countr_zero(static_cast<std::uint64_t>(step))},
            {Param::out_tiles, out_tiles},
            {Param::tiles, tiles}}},
          y,
          z};
}

struct Tiling {
  std::int64_t tile_h, tile_w, tiles_h, tiles_w;
};

// The fewest tiles of so many pixels that cover an image's span; the widest of those.
Tiling tiling(std::int64_t pixels, std::int64_t span_h, std::int64_t span_w) noexcept {
  Tiling best{};
  for (std::int64_t rows = 1; rows <= pixels; ++rows) {
    const std::int64_t tiles_w = cdiv(span_w, pixels / rows), tile_w = cdiv(span_w, tiles_w);
    const std::int64_t tile_h = std::min(pixels / tile_w, span_h), tiles_h = cdiv(span_h, tile_h);
    if (rows == 1 || tiles_h * tiles_w < best.tiles_h * best.tiles_w)
      best = {tile_h, tile_w, tiles_h, tiles_w};
  }
  return best;
}

// Whether most residues have no tap, and a program's stores of those hide what its tap waits for.
bool mostly_empty(const Problem& problem) noexcept {
  const Pair stride = problem.geometry.stride;
  return 2 * problem.kernel.h * problem.kernel.w < stride.h * stride.w;
}

// Whether a program's offsets fit 32 bits: within its tiles' rows, or those of all its pixels, some
// of which lie past a tile; and from an image's last tile to the next image, down or up.
bool offsets_fit(const Problem& problem, const Tiling& shape, std::int64_t pixels,
                 std::int64_t tiles) noexcept {
  const Pair in = problem.in, out = problem.out();
  const std::int64_t of_tiles = std::max((tiles + 1) * shape.tile_h, cdiv(pixels, shape.tile_w));
  const auto lines = [&](std::int64_t size, std::int64_t stride) {
    return product(of_tiles, stride) +
           product(cdiv(tiles - 1, shape.tiles_h),
                   std::abs(size - shape.tiles_h * shape.tile_h * stride));
  };
  return lines(out.h, problem.geometry.stride.h) * product(out.w, problem.out_channels) <= kInt32 &&
         lines(in.h, 1) * product(in.w, problem.in_channels) <= kInt32;
}

// Tiles of a program where tiles are plenty. They must earn its prologue, unless it is hidden, by
// its other stores and those of the programs beside it: then the shortest programs end together.
// (In images smaller than the stride some programs store nothing.)
std::int64_t most_tiles(const Problem& problem, const Room& room) noexcept {
  const Pair stride = problem.geometry.stride, out = problem.out();
  if (mostly_empty(problem) && out.h >= stride.h && out.w >= stride.w &&
      room.resident >= 4 * room.sms)
    return 1;
  const std::int64_t taps = problem.kernel.h * problem.kernel.w;
  const std::int64_t all = problem.dtype == DType::f32 ? 6 : 4;
  return std::max<std::int64_t>(cdiv(all * taps, stride.h * stride.w), 2);
}

// `most` or fewer: `programs` says how many programs tiles make, and `fits` whether one may have so
// many. As many as `rows` of them ask of a grid, though; 0 if a program may not have those.
std::int64_t tiles_of_a_program(std::int64_t most, std::int64_t rows, const Room& room,
                                const auto& programs, const auto& fits) noexcept {
  std::int64_t tiles = most;
  while (tiles > 1 && (!fits(tiles) || programs(tiles) < 8.0 * room.sms)) --tiles;
  // Fewer where that saves most of a last, emptier wave; a prologue takes about as long as a tile.
  const auto time = [&](std::int64_t tiles) {
    return std::ceil(programs(tiles) / static_cast<double>(room.resident)) *
           static_cast<double>(tiles + 1);
  };
  for (std::int64_t fewer = tiles - 1; fewer > 1; --fewer)
    if (time(fewer) < time(tiles)) tiles = fewer;
  tiles = std::max(tiles, cdiv(rows, kGridLayers));
  return fits(tiles) ? tiles : 0;
}

struct Prefetch {
  std::int64_t slab, slab_lines, input_lines;
};

// For prefetch_slab of aot/kernels/prefetch.py: a slab is as many of the `positions`, which walk
// over the input in order, as read 1 MiB of it. A position has so many `threads`.
Prefetch prefetch(const Problem& problem, std::int64_t positions, double threads) noexcept {
  const std::int64_t lines = cdiv(problem.input_numel(), 8 * lanes(problem));  // of 128 bytes
  const std::int64_t slab = std::clamp<std::int64_t>(8192 * positions / lines, 1, positions);
  const std::int64_t slab_lines = cdiv(lines * slab, positions);
  // It counts in 32 bits, to the end of the slab AHEAD (two) behind the last, and a stride further.
  if (product(positions / slab + 3, slab_lines) + threads > kInt32) return {1, 0, 0};
  return {slab, slab_lines, lines};
}

bool outside(std::int64_t size, const SingleTaps& taps) noexcept {
  return taps.first < 0 || taps.first + taps.span > size;
}

Candidate candidate_nhwc(const Variant& variant, const Problem& problem,
                         const Room& room) noexcept {
  const Geometry& g = problem.geometry;
  const Pair in = problem.in;
  const SingleTaps taps_h = down(problem), taps_w = across(problem);
  const bool edges = problem.bias || outside(in.h, taps_h) || outside(in.w, taps_w);
  const Tiling shape = tiling(variant.block_pixels, taps_h.span, taps_w.span);
  const std::int64_t x = problem.kernel.w * shape.tiles_w;
  const std::int64_t y = problem.kernel.h * g.groups * cdiv(problem.group_out(), variant.block_out);
  const std::int64_t rows = problem.batch * shape.tiles_h;
  const double threads = product(x, y, 32 * variant.warps);  // prefetch_slab counts them
  if ((variant.aligned && !vectors_fit(problem)) || !weight_fits(variant, problem) ||
      std::max(threads, product(2, rows)) > kInt32 || y > kGridLayers)
    return {};

  const auto programs = [&](std::int64_t tiles) { return product(x, y, cdiv(rows, tiles)); };
  const auto fits = [&](std::int64_t tiles) {
    return offsets_fit(problem, shape, variant.block_pixels, tiles);
  };
  const std::int64_t tiles =
      tiles_of_a_program(most_tiles(problem, room), rows, room, programs, fits);
  if (tiles == 0) return {};
  const std::int64_t z = cdiv(rows, tiles);
  // fp32 products of over 32 channels take longer than memory, unless most outputs have none.
  const bool memory_bound =
      problem.dtype != DType::f32 || variant.block_in <= 32 || mostly_empty(problem);
  const auto [slab, slab_lines, input_lines] =
      memory_bound ? prefetch(problem, z, threads) : Prefetch{1, 0, 0};
  const double depth =
      variant.deep ? 1.5 * static_cast<double>(problem.group_in()) : variant.block_in;
  return {&variant,
          x,
          std::ceil(programs(tiles) / room.sms) * product(tiles, variant.block_pixels) * depth,
          {{{Param::edges, edges},
            {Param::tile_h, shape.tile_h},
            {Param::tile_w, shape.tile_w},
            {Param::inverse_w, cdiv(1 << 16, shape.tile_w)},
            {Param::tiles_h, shape.tiles_h},
            {Param::tiles, tiles},
            {Param::slab, slab},
            {Param::slab_lines, slab_lines},
            {Param::input_lines, input_lines}}},
          y,
          z};
}

constexpr const char* kReason = "at most one tap per output: stored in whole pieces of rows";

}  // namespace

const FamilyRules kSingleTapNchw{Family::single_tap_nchw, kReason, &unsupported_nchw,
                                 &candidate_nchw};
const FamilyRules kSingleTapNhwc{Family::single_tap_nhwc, kReason, &unsupported_nhwc,
                                 &candidate_nhwc};

}  // namespace convt
