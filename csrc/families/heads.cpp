// Few output channels a group; see aot/kernels/heads.py.
#include "families/heads.hpp"

#include <cmath>
#include <numeric>
#include <utility>

#include "families/slices.hpp"

namespace convt::heads {
namespace {

constexpr std::int64_t kMostOut = 16;
constexpr std::int64_t kMostTaps = 16;  // along a row
constexpr std::int64_t kMostRing = 64;
constexpr std::int64_t kMostRows = 64;  // of a program

std::int64_t taps(const Axis& a) noexcept { return cdiv(a.kernel, a.stride); }
std::int64_t quotients(const Axis& a) noexcept { return cdiv(a.out() + a.padding, a.stride); }

// Positions of an image's row: its inputs and the zeros that its last tap reaches, or its outputs.
std::int64_t span(const Axis& w) noexcept { return std::max(quotients(w), w.in + taps(w) - 1); }

const char* unsupported(const Problem& p) noexcept {
  if (p.group_out() > kMostOut) return "it has more than 16 output channels a group";
  if (const char* why = has_depth(p)) return why;
  if (p.h.dilation != 1 && p.h.kernel != 1) return "it is dilated";
  if (p.w.dilation != 1 && p.w.kernel != 1) return "it is dilated";
  if (p.h.stride > p.h.kernel) return "it has output rows without a tap";
  if (p.h.kernel > kMostRing) return "its kernel has more than 64 rows";
  if (taps(p.w) > kMostTaps) return "an output has more than 16 taps along its row";
  if (const char* why = too_large(p)) return why;
  if (product(p.input_numel(), 1) > kInt32 / 2 || product(p.output_numel(), 1) > kInt32 / 2 ||
      product(p.weight_numel(), 1) > kInt32 / 2 ||
      product(p.batch + 1, span(p.w), p.w.stride) > kInt32 / 2)
    return "offsets need more than 32 bits";
  return nullptr;
}

struct Tiles {
  std::int64_t out = 0, phases = 0;             // output channels and width phases of a program
  std::int64_t out_tiles = 0, phase_tiles = 0;  // programs for them
  std::int64_t turned = 0;                      // see the kernel
  std::int64_t positions = 0;                   // programs along them
  std::int64_t rows = 0, row_tiles = 0;
  std::int64_t slice_in = 0, slices = 0;
  double us = kNever;

  std::int64_t columns() const noexcept { return out * phases; }
  std::int64_t layers(const Problem& p) const noexcept {
    return out_tiles * phase_tiles * p.groups * slices;
  }
};

// Output channels and phases that make the fewest programs, and the fewest columns of those.
Tiles columns(const Traits& t, const Problem& p) noexcept {
  const std::int64_t room = (t.columns + t.more) / p.h.kernel;
  Tiles best;
  for (std::int64_t out = 1; out <= std::min(p.group_out(), room); ++out) {
    Tiles n;
    n.out_tiles = cdiv(p.group_out(), out);
    n.out = cdiv(p.group_out(), n.out_tiles);
    n.phase_tiles = cdiv(p.w.stride, std::min(p.w.stride, room / out));
    n.phases = cdiv(p.w.stride, n.phase_tiles);
    const auto key = [](const Tiles& tiles) {
      return std::pair(tiles.out_tiles * tiles.phase_tiles, tiles.columns());
    };
    if (best.out == 0 || key(n) < key(best)) best = n;
  }
  best.turned = p.h.kernel - std::gcd(p.h.kernel, p.h.stride);
  best.positions = cdiv(p.batch * span(p.w), t.block_pixels - taps(p.w) + 1);
  return best;
}

// Whether the weights of a slice fit shared memory, where they are loaded so many lines at a time.
bool weights_fit(const Traits& t, const Problem& p, const Tiles& n) noexcept {
  const std::int64_t lines =
      cdiv(n.slice_in, t.block_in) * taps(p.w) * (p.h.kernel + n.turned) * n.columns();
  const std::int64_t staged = 16 * t.warps;
  return cdiv(lines, staged) * staged <= t.room;
}

// Fitted to measurements on an H200. A multiprocessor's time for a program: of each block of a row
// it loads, splits and multiplies, of each row it stores; and a program waits for each block.
void predict(const Config& config, const Problem& p, const Gpu& gpu, Tiles& n) {
  constexpr double kStart = 3.2, kFirst = 6, kWait = 1.9;
  const Variant& variant = *config.variant;
  const Traits t = traits(variant);
  const bool split = variant.math == Math::fp32;
  const std::int64_t before = (p.h.kernel - 1) / p.h.stride;
  const auto rows = static_cast<double>(std::min(n.rows + before, quotients(p.h)));
  const double steps = std::min(rows, static_cast<double>(p.h.in)) *
                       static_cast<double>(cdiv(n.slice_in, t.block_in));
  const double inputs = product(t.block_pixels, t.block_in) * 1e-6;
  const double products = inputs * product(taps(p.w), t.columns + t.more);
  const double outputs = product(t.block_pixels, t.columns + t.more) * 1e-6;
  const double step = split ? 150 * inputs + 2.9 * products : 50 * inputs + 0.6 * products;
  const double program = kStart + steps * step + rows * outputs * (split ? 420 : 750);
  const double programs = product(n.positions, n.row_tiles, n.layers(p));
  const Image& image = *variant.image(gpu.image.arch, gpu.image.kind);
  const auto resident = static_cast<double>(gpu.resident(image, variant.warps));
  const double busy = std::max(1.0, programs / static_cast<double>(gpu.multiprocessors)) * program;
  const double waits = std::ceil(programs / resident) * (kFirst + kWait * steps);
  const double reads = static_cast<double>(n.out_tiles * n.phase_tiles) * rows *
                       static_cast<double>(n.row_tiles) / static_cast<double>(quotients(p.h));
  const double bytes = product(p.element_bytes()) *
                       (reads * product(p.input_numel(), 1) + product(p.output_numel(), 1));
  n.us = std::max(
             {clock_us(std::max(busy, waits), gpu), gpu.memory_us(bytes) / 0.85, gpu.floor_us(p)}) +
         kLaunchUs + slices_us(p, gpu, n.slices);
}

// The numbers to weigh for a knob, up to `most`: all small ones, then some; or the knob's alone.
std::vector<std::int64_t> numbers(std::int32_t knob, std::int64_t most) {
  if (knob > 0) return {knob};
  std::vector<std::int64_t> out;
  for (std::int64_t n = 1; n <= most; n += std::max<std::int64_t>(n / 4, 1)) out.push_back(n);
  return out;
}

// So many slices and rows, or the quickest.
Tiles tiles(const Config& config, const Problem& p, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  Tiles best, n = columns(t, p);
  if (n.out == 0) return best;
  const std::int64_t blocks = cdiv(p.group_in(), t.block_in), all = quotients(p.h);
  for (const std::int64_t slices : numbers(config.knobs[0], std::min(blocks, kMostSlices))) {
    n.slice_in = cdiv(blocks, slices) * t.block_in;
    n.slices = cdiv(p.group_in(), n.slice_in);
    if (!weights_fit(t, p, n)) continue;
    for (const std::int64_t rows : numbers(config.knobs[1], std::min(all, kMostRows))) {
      n.row_tiles = cdiv(all, rows);
      n.rows = cdiv(all, n.row_tiles);
      predict(config, p, gpu, n);
      if (n.us < best.us) best = n;
    }
  }
  return best;
}

bool serves(const Traits& t, const Problem& p) noexcept {
  return !t.aligned || (p.aligned && p.group_in() % lanes(p) == 0);
}

double microseconds(const Config& config, const Problem& p, const Gpu& gpu) {
  if (!serves(traits(*config.variant), p)) return kNever;
  const Tiles n = tiles(config, p, gpu);
  if (n.us == kNever || n.row_tiles > kGridLayers || n.layers(p) > kGridLayers) return kNever;
  return n.us;
}

Program program(const Config& config, const Problem& p, const Gpu& gpu) {
  const Tiles n = tiles(config, p, gpu);
  const Arguments arguments(p,
                            {.partial = n.slices > 1 ? Buffer{.role = Role::workspace} : Buffer{},
                             .rows_h = quotients(p.h),
                             .positions_w = span(p.w),
                             .rows = n.rows,
                             .ring = p.h.kernel,
                             .turned = n.turned,
                             .taps_w = taps(p.w),
                             .tile_out = n.out,
                             .out_tiles = n.out_tiles,
                             .tile_phases = n.phases,
                             .phase_tiles = n.phase_tiles,
                             .slice_in = n.slice_in,
                             .slices = n.slices});
  const Grid grid = grid_of(n.positions, n.row_tiles, n.layers(p));
  Program out{.steps = {step(*config.variant, gpu, grid, arguments)}, .workspace_bytes = 0};
  if (n.slices > 1) add_slices(out, *config.variant, p, gpu, n.slices);
  return out;
}

}  // namespace

const Family kFamily{.reason = "few output channels: the input read once for all its products",
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program,
                     .knobs = {"slices", "rows"}};

}  // namespace convt::heads
