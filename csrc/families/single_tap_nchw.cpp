// At most one tap per output and axis, contiguous layout; see aot/kernels/single_tap_nchw.py.
#include "families/single_tap_nchw.hpp"

#include <bit>
#include <cmath>
#include <numeric>

#include "families/one_tap.hpp"

namespace convt::single_tap_nchw {
namespace {

const char* unsupported(const Problem& problem) noexcept {
  return several_taps(problem, Layout::nchw);
}

// The most columns by which a tap's output may lie beyond its pixel's own in the shared image: rows
// of the image are as far apart, and a sector more.
constexpr std::int64_t kReach = 48;

// An input row is cut into `tiles_w` tiles of `tile_w` columns, a multiple of `step`, from column
// `first` on. Outputs that would take columns outside the image are bias; programs write those that
// a tap of theirs reaches, so such columns need no program. tiles_w is 0 where the shared image has
// no room.
struct Columns {
  std::int64_t first, tile_w, tiles_w;
};

Columns columns(const Problem& problem, std::int64_t pixels, std::int64_t sector,
                std::int64_t step) noexcept {
  const std::int64_t stride = problem.w.stride;
  const SingleTaps taps = single_taps(problem.w);
  if (taps.halo * stride > kReach) return {};
  const std::int64_t first = std::max<std::int64_t>(taps.first, 0);
  const std::int64_t image_end = std::min(taps.first + taps.span, problem.w.in);
  const std::int64_t reach_end = cdiv(problem.w.out() + problem.w.padding, stride) - taps.halo;
  const std::int64_t span = std::max({image_end, reach_end, first + 1}) - first;
  if (span <= pixels) return {.first = first, .tile_w = pixels, .tiles_w = 1};
  // A program shares sectors with the next, and needs the pixels under them.
  const std::int64_t tile_w = (pixels - taps.halo - cdiv(sector - 1, stride)) / step * step;
  return {.first = first, .tile_w = tile_w, .tiles_w = tile_w > 0 ? cdiv(span, tile_w) : 0};
}

// The channel tiles of a program, which share the input that it loads. Fewer are taken where pairs
// of 16-bit numbers make the input cheaper, and where few outputs have taps: memory is the limit
// there, and short programs write closer together. `others`: programs for each tile.
std::int64_t channel_tiles(const Problem& problem, bool pairs, std::int64_t out_tiles,
                           double others, const Machine& machine) noexcept {
  const auto programs = [&](std::int64_t tiles) { return product(others, cdiv(out_tiles, tiles)); };
  std::int64_t tiles =
      (pairs ? 3 : 4) * problem.taps() / (problem.d.stride * problem.h.stride * problem.w.stride);
  tiles = std::clamp<std::int64_t>(tiles, 1, out_tiles);
  while (tiles > 1 && programs(tiles) < 4.0 * machine.multiprocessors) --tiles;
  // One tile more where that saves a second, emptier wave.
  const double resident = static_cast<double>(machine.resident);
  return tiles + (programs(tiles) > resident && programs(tiles + 1) <= resident);
}

struct Tiling {
  Columns columns{};
  std::int64_t step = 0;       // planes of channels so far apart begin alike in a sector
  std::int64_t out_tiles = 0;  // of channels
  std::int64_t tiles = 0;      // of a program
  std::int64_t x = 0, y = 0, z = 0;
  bool fits = false;
};

Tiling tiling(const Config& config, const Problem& problem, const Gpu& gpu) noexcept {
  const Traits t = traits(*config.variant);
  const bool pairs = t.copied == 2;  // of 16-bit numbers, copied together
  const std::int64_t pair = pairs ? 2 : 1;
  Tiling tiling;
  const auto [first, tile_w, tiles_w] = tiling.columns =
      columns(problem, t.block_pixels, t.sector, pair);
  const std::int64_t plane = problem.d.out() * problem.h.out() * problem.w.out();
  const std::int64_t step = tiling.step = t.sector / std::gcd(t.sector, plane);
  const std::int64_t channels = t.block_out * step;
  if ((pairs && (!problem.aligned || problem.w.in % pair != 0 || first % pair != 0)) ||
      t.stride != problem.w.stride || t.taps < problem.w.kernel || tiles_w == 0 ||
      problem.group_in() > t.block_in || !weight_rows_fit(problem, t.block_in) ||
      problem.w.out() < t.sector ||  // a sector may belong to two rows, not to three
      // Offsets in a program are 32-bit.
      product(channels + 1, plane) > kInt32 ||
      product(t.block_in + 1, problem.d.in, problem.h.in, problem.w.in) > kInt32)
    return tiling;
  const std::int64_t before = (problem.group_out() - 1) / channels;
  tiling.out_tiles = before * step + std::min(step, problem.group_out() - before * channels);
  tiling.x = tiles_w * single_taps(problem.h).span * problem.d.out();
  tiling.z = problem.batch * problem.groups;
  tiling.tiles = channel_tiles(problem, pairs, tiling.out_tiles, product(tiling.x, tiling.z),
                               machine(config, gpu));
  tiling.y = cdiv(tiling.out_tiles, tiling.tiles);
  tiling.fits = tiling.x <= kInt32 && std::max(tiling.y, tiling.z) <= kGridLayers;
  return tiling;
}

double microseconds(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  const Tiling of = tiling(config, problem, gpu);
  if (!of.fits) return kNever;
  const double waves = std::ceil(product(of.x, of.y, of.z) / gpu.multiprocessors);
  const double work = waves * product(of.tiles, t.block_pixels + t.block_in, 16 + t.taps) *
                      (t.copied == 2 ? 1.0 : 1.25);
  // Outputs without a tap are stored at memory speed.
  return 4.0 + (1.15 + 0.5 * tapped(problem)) * memory_us(problem, gpu) +
         clock_us(0.1e-4 * work, gpu);
}

Program program(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Tiling of = tiling(config, problem, gpu);
  Arguments arguments(problem, {.tile_w = of.columns.tile_w,
                                .tiles_w = of.columns.tiles_w,
                                .log2_step = std::countr_zero(static_cast<std::uint64_t>(of.step)),
                                .out_tiles = of.out_tiles,
                                .tiles = of.tiles});
  arguments.first_w = of.columns.first;  // outputs of columns outside the image need no product
  return one_launch(config, gpu, grid_of(of.x, of.y, of.z), arguments);
}

}  // namespace

const Family kFamily{.reason = kOneTapReason,
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program};

}  // namespace convt::single_tap_nchw
