// At most one tap per output and axis, channels_last; see aot/kernels/single_tap_nhwc.py.
#include "families/single_tap_nhwc.hpp"

#include <cmath>
#include <cstdlib>

#include "families/one_tap.hpp"

namespace convt::single_tap_nhwc {
namespace {

const char* unsupported(const Problem& problem) noexcept {
  return several_taps(problem, Layout::nhwc);
}

struct Shape {
  std::int64_t tile_h, tile_w, tiles_h, tiles_w;
};

// Tiles of at most `pixels` pixels that cover the span of an image: of the shapes with the fewest
// tiles the widest.
Shape best_shape(std::int64_t pixels, std::int64_t span_h, std::int64_t span_w) noexcept {
  Shape best{};
  for (std::int64_t rows = 1; rows <= pixels; ++rows) {
    const std::int64_t tiles_w = cdiv(span_w, pixels / rows), tile_w = cdiv(span_w, tiles_w);
    const std::int64_t tile_h = std::min(pixels / tile_w, span_h), tiles_h = cdiv(span_h, tile_h);
    if (rows == 1 || tiles_h * tiles_w < best.tiles_h * best.tiles_w)
      best = {.tile_h = tile_h, .tile_w = tile_w, .tiles_h = tiles_h, .tiles_w = tiles_w};
  }
  return best;
}

// Whether most residues have no tap: a program's stores of their bias then hide the loads of its
// tap.
bool mostly_empty(const Problem& problem) noexcept { return tapped(problem) < 0.5; }

// Whether the offsets of a program fit 32 bits. They span the rows of its tiles, or of all its
// pixels, some of which lie past a tile; and they step from the last tile of an image to the next
// image, down or up. Slices of a volume are images.
bool offsets_fit(const Problem& problem, const Shape& shape, std::int64_t pixels,
                 std::int64_t tiles) noexcept {
  const std::int64_t of_tiles = std::max((tiles + 1) * shape.tile_h, cdiv(pixels, shape.tile_w));
  const auto lines = [&](std::int64_t size, std::int64_t stride) {
    return product(of_tiles, stride) +
           product(cdiv(tiles - 1, shape.tiles_h),
                   std::abs(size - shape.tiles_h * shape.tile_h * stride));
  };
  return lines(problem.d.stride * problem.h.out(), problem.h.stride) *
                 product(problem.w.out(), problem.out_channels) <=
             kInt32 &&
         lines(problem.h.in, 1) * product(problem.w.in, problem.in_channels) <= kInt32;
}

// The tiles of a program where there are plenty. Several tiles share one prologue. One tile is
// enough where the program's other stores, and those of the programs beside it, hide the prologue:
// the shortest programs end together. (In images smaller than the stride some programs store
// nothing.)
std::int64_t most_tiles(const Problem& problem, const Machine& machine) noexcept {
  const Axis &h = problem.h, &w = problem.w;
  if (mostly_empty(problem) && h.out() >= h.stride && w.out() >= w.stride &&
      machine.resident >= 4 * machine.multiprocessors)
    return 1;
  const std::int64_t all = problem.dtype() == DType::f32 ? 6 : 4;
  return std::max<std::int64_t>(cdiv(all * problem.taps(), problem.d.stride * h.stride * w.stride),
                                2);
}

// The tiles of a program: at most `most`, but at least as many as a grid of `rows` rows needs; 0 if
// a program may not have that many. programs(tiles) is the number of programs that this makes, and
// fits(tiles) whether a program may have so many.
std::int64_t tiles_of_a_program(std::int64_t most, std::int64_t rows, const Machine& machine,
                                const auto& programs, const auto& fits) noexcept {
  std::int64_t tiles = most;
  while (tiles > 1 && (!fits(tiles) || programs(tiles) < 8.0 * machine.multiprocessors)) --tiles;
  // Fewer where that saves most of a last, emptier wave; a prologue takes about as long as a tile.
  const auto time = [&](std::int64_t tiles) {
    return std::ceil(programs(tiles) / static_cast<double>(machine.resident)) *
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

// Arguments of prefetch_slab in aot/kernels/prefetch.py. The `positions` of a grid, of `threads`
// threads each, walk over the input in order; a slab is as many of them as read 1 MiB.
Prefetch prefetch(const Problem& problem, std::int64_t positions, double threads) noexcept {
  const std::int64_t lines = cdiv(problem.input_numel(), 8 * lanes(problem));  // of 128 bytes
  const std::int64_t slab = std::clamp<std::int64_t>(8192 * positions / lines, 1, positions);
  const std::int64_t slab_lines = cdiv(lines * slab, positions);
  // prefetch_slab counts in 32 bits, to the end of the second slab behind the last (AHEAD is two),
  // and a stride further.
  if (product(positions / slab + 3, slab_lines) + threads > kInt32)
    return {.slab = 1, .slab_lines = 0, .input_lines = 0};
  return {.slab = slab, .slab_lines = slab_lines, .input_lines = lines};
}

bool outside(const Axis& axis) noexcept {
  const SingleTaps taps = single_taps(axis);
  return taps.first < 0 || taps.first + taps.span > axis.in;
}

struct Tiling {
  Shape shape{};
  std::int64_t tiles = 0;  // of a program; 0: no program may have as many as it must
  std::int64_t x = 0, y = 0, z = 0;
  double programs = 0;
};

Tiling tiling(const Config& config, const Problem& problem, const Gpu& gpu) noexcept {
  const Traits t = traits(*config.variant);
  const Machine of = machine(config, gpu);
  const Shape shape =
      best_shape(t.block_pixels, single_taps(problem.h).span, single_taps(problem.w).span);
  Tiling tiling{.shape = shape};
  const std::int64_t x = tiling.x = problem.w.kernel * shape.tiles_w;
  const std::int64_t y = tiling.y =
      problem.d.kernel * problem.h.kernel * problem.groups * cdiv(problem.group_out(), t.block_out);
  const std::int64_t rows = problem.batch * problem.d.in * shape.tiles_h;
  const double threads = product(x, y, 32 * config.variant->warps);  // prefetch_slab counts them
  if (!vectors_fit(problem) || (!t.deep && problem.group_in() > t.block_in) ||
      !weight_rows_fit(problem, t.block_in) || std::max(threads, product(2, rows)) > kInt32 ||
      y > kGridLayers)
    return tiling;
  const auto programs = [&](std::int64_t tiles) { return product(x, y, cdiv(rows, tiles)); };
  const auto fits = [&](std::int64_t tiles) {
    return offsets_fit(problem, shape, t.block_pixels, tiles);
  };
  tiling.tiles = tiles_of_a_program(most_tiles(problem, of), rows, of, programs, fits);
  if (tiling.tiles == 0) return tiling;
  tiling.z = cdiv(rows, tiling.tiles);
  tiling.programs = programs(tiling.tiles);
  return tiling;
}

double microseconds(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  const Tiling of = tiling(config, problem, gpu);
  if (of.tiles == 0) return kNever;
  const double depth =
      t.deep ? 1.5 * static_cast<double>(problem.group_in()) : static_cast<double>(t.block_in);
  const double work =
      std::ceil(of.programs / gpu.multiprocessors) * product(of.tiles, t.block_pixels) * depth;
  return problem.dtype() == DType::f32
             ? 5.0 + std::max(1.05 * memory_us(problem, gpu), clock_us(2.29e-4 * work, gpu)) +
                   clock_us(0.01e-4 * work, gpu)
             : 3.0 + memory_us(problem, gpu) + clock_us(0.25e-4 * work, gpu);
}

Program program(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  const Tiling of = tiling(config, problem, gpu);
  const double threads = product(of.x, of.y, 32 * config.variant->warps);
  // fp32 products of over 32 channels take longer than memory, unless most outputs have none.
  const bool memory_bound =
      problem.dtype() != DType::f32 || t.block_in <= 32 || mostly_empty(problem);
  const auto [slab, slab_lines, input_lines] =
      memory_bound ? prefetch(problem, of.z, threads)
                   : Prefetch{.slab = 1, .slab_lines = 0, .input_lines = 0};
  const Arguments arguments(problem,
                            {.edges = problem.bias || outside(problem.h) || outside(problem.w),
                             .images = problem.batch * problem.d.in,
                             .tile_h = of.shape.tile_h,
                             .tile_w = of.shape.tile_w,
                             .inverse_w = cdiv(1 << 16, of.shape.tile_w),
                             .tiles_h = of.shape.tiles_h,
                             .tiles = of.tiles,
                             .slab = slab,
                             .slab_lines = slab_lines,
                             .input_lines = input_lines});
  return one_launch(config, gpu, grid_of(of.x, of.y, of.z), arguments);
}

}  // namespace

const Family kFamily{.reason = kOneTapReason,
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program};

}  // namespace convt::single_tap_nhwc
