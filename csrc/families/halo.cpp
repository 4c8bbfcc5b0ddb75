// Deep layers on sm_90; see aot/kernels/halo.py. Two steps: channels of input and weight become
// innermost where they are not, then the product.
#include "families/halo.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "families/halo_prepare.hpp"

namespace convt::halo {
namespace {

enum Kind : std::int64_t { kNhwc, kRows, kLines, kFold };  // KINDS of aot/families/halo.py

constexpr std::int64_t kPeriod = 8;        // pixels of a swizzle period, a KiB of shared memory
constexpr std::int64_t kMostBoxes = 8;     // barriers for boxes that a kernel has
constexpr std::int64_t kPair = 2;          // pixels, of which rows of a box are made
constexpr std::int64_t kMostPairs = 1023;  // of a box, whose number has so many bits set:
constexpr int kMostBits = 4;
constexpr std::int64_t kMostBox = 256;      // elements of a box along a dimension
constexpr std::int64_t kPrepareBlock = 64;  // BLOCK of halo_prepare

// One axis as the kernel sees it: output q * step + r - back of phase r < phases. Its residue is
// (r + before) % phases; it has least + (residue < more ? extra : 0) taps, `period` apart, whose
// shifts of the input are `apart`.
struct Side {
  std::int64_t in, out, taps, phases, before, step, back;
  std::int64_t least, more, extra, period, apart;
  std::int64_t quotients() const noexcept { return cdiv(out + back, step); }
};

// Taps that a stride goes round, or that are a multiple of it apart: then one phase has them all.
Side side_of(const Axis& a, std::int64_t taps, std::int64_t phases, std::int64_t before) noexcept {
  Side side{a.in, a.out(),       taps,          phases, before, a.stride,
            0,    taps / phases, taps % phases, 1,      phases, 1};
  if (a.dilation > 1 && taps > 1) {
    side.least = 0, side.more = 1, side.extra = taps, side.period = 1;
    side.apart = a.dilation / phases;
  }
  return side;
}

// Boxes and tiles: `images` of `rows` rows of `width` input pixels.
struct Tiling {
  std::int64_t width = 0, height = 0, images = 0, rows = 0, boxes = 0, tiles = 0;
  std::int64_t pixels() const noexcept { return images * rows * width; }
  std::int64_t periods() const noexcept { return cdiv(pixels(), kPeriod); }
};

struct Layer {
  Traits t;
  Side d, h, w;
  std::int64_t images, y_n, y_h;
  std::int64_t fold;  // width phases that are columns
  std::int64_t row;   // input channels of a pixel and group, zeros included
  bool turned;        // whether the input is copied,
  bool packed;        // and the weight
};

// [begin, end) of the input shifts of a phase, and how many there are.
struct Shifts {
  std::int64_t begin, end, count;
};

Shifts shifts_of(const Side& side, std::int64_t phase) noexcept {
  const std::int64_t residue = phase + side.before, end = residue / side.phases + 1;
  const std::int64_t count = side.least + (residue % side.phases < side.more ? side.extra : 0);
  return {end - 1 - (count - 1) * side.apart, end, count};
}

// What the tiles of a side's phases, `group` of them each, come to.
struct Span {
  std::int64_t most = 0;    // rows between a tile's first and last shift, both included, at most
  std::int64_t shifts = 0;  // of all tiles
  std::int64_t steps = 0;   // of all tiles, `rows` taps of a phase a step
  std::int64_t tapped = 0;  // tiles with taps
};

Span span_of(const Side& side, std::int64_t group, std::int64_t rows) noexcept {
  Span span;
  for (std::int64_t first = 0; first < side.phases; first += group) {
    std::int64_t low = kInt32, high = -kInt32, taps = 0;
    for (std::int64_t phase = first; phase < first + group; ++phase) {
      const Shifts shifts = shifts_of(side, phase);
      low = std::min(low, shifts.begin), high = std::max(high, shifts.end);
      taps += shifts.count;
      span.steps += cdiv(shifts.count, rows);
    }
    span.most = std::max(span.most, high - low);
    if (taps > 0) span.shifts += cdiv(high - low, side.apart), ++span.tapped;
  }
  return span;
}

Layer layer_of(const Config& config, const Problem& p) noexcept {
  const Traits t = traits(*config.variant);
  const auto side = [](const Axis& a) { return side_of(a, a.kernel, a.stride, a.padding); };
  const std::int64_t row = cdiv(p.group_in(), lanes(p)) * lanes(p);
  Layer l{.t = t,
          .d = side(p.d),
          .h = side(p.h),
          .w = side(p.w),
          .images = p.batch,
          .y_n = p.out_channels * p.d.out() * p.h.out() * p.w.out(),
          .y_h = p.layout == Layout::nhwc ? p.w.out() * p.out_channels : p.w.out(),
          .fold = 1,
          .row = row,
          .turned = p.layout == Layout::nchw || row != p.group_in() || !p.aligned,
          .packed = !t.straight};
  if (p.d == Axis{} && p.h == Axis{}) {  // images of one row are the rows of one image
    l.h.in = l.h.out = p.batch;
    l.images = 1;
    l.y_h = std::exchange(l.y_n, 0);
  }
  if (t.kind == kFold) {
    l.fold = p.w.stride;
    l.w = side_of(p.w, cdiv(p.w.kernel, l.fold), 1, 0);
    l.w.back = p.w.padding;
  }
  return l;
}

// Widths of tiles to try, the least first.
constexpr std::array<std::int64_t, 13> kWidths{4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 64, 128, 256};

// The tiling of the fewest tiles, halo rows counted; among equals of the widest.
Tiling tiling_of(const Layer& l) noexcept {
  const Traits& t = l.t;
  const std::int64_t across = l.w.quotients(), down = l.h.quotients();
  const std::int64_t halo = std::max<std::int64_t>(span_of(l.h, t.group_h, 1).most, 1) - 1;
  Tiling best;
  double least = kNever;
  for (const std::int64_t most : kWidths) {
    if (most > std::min(kMostBox, t.block_pixels) || (t.kind == kLines && most % 64 != 0)) continue;
    if (most < kPeriod && most < across && t.kind != kNhwc) continue;  // rows are stored by sectors
    // As wide as it has to be for so many tiles.
    const std::int64_t width =
        t.kind == kLines ? most : cdiv(cdiv(across, cdiv(across, most)), kPair) * kPair;
    const std::int64_t room = t.block_pixels / width;  // lines of a tile
    Tiling now{.width = width, .height = std::min(room, down), .images = 1};
    now.rows = now.height + halo;
    if (now.height == down && l.d.in == 1)
      now.images = std::min(l.images, (room - down) / now.rows + 1);
    while (std::popcount(static_cast<std::uint64_t>(now.pixels() / kPair)) > kMostBits &&
           now.rows < now.height + halo + 3 &&
           now.height + (now.images - 1) * (now.rows + 1) <= room)
      ++now.rows;
    // Tiles may be read beyond their box, but not beyond the memory of all boxes.
    const std::int64_t beyond =
        std::max<std::int64_t>(0, cdiv(halo * width + t.block_pixels, kPeriod) - now.periods());
    now.boxes = std::min(kMostBoxes, (t.periods - beyond) / now.periods());
    if (now.rows > kMostBox || now.pixels() / kPair > kMostPairs || now.boxes < 2 ||
        std::popcount(static_cast<std::uint64_t>(now.pixels() / kPair)) > kMostBits)
      continue;
    now.tiles = cdiv(across, width) * cdiv(down, now.height) * cdiv(l.images, now.images);
    const double box = static_cast<double>(now.pixels()) / static_cast<double>(t.block_pixels);
    // Rows whose ends no vector meets: each tile of a row shares sectors with the next.
    const double ragged =
        t.kind == kRows && l.w.out % 2 != 0 ? 8.0 / static_cast<double>(width) : 0;
    const double cost = static_cast<double>(now.tiles) * (1 + 0.15 * box) * (1 + ragged);
    if (cost <= least) least = cost, best = now;
  }
  return best;
}

const char* unsupported(const Problem& p) noexcept {
  for (const Axis* a : {&p.d, &p.h, &p.w})
    if (a->dilation % a->stride != 0 && a->dilation != 1 && a->kernel != 1)
      return "its dilation is no multiple of its stride";
  return too_large(p);
}

// Whether the layer suits what the variant is compiled for.
bool suits(const Traits& t, const Problem& p) noexcept {
  const auto together = [](const Axis& a, std::int64_t group) {
    return a.stride % group == 0 && (group == 1 || a.kernel == 1 || a.dilation <= a.stride);
  };
  if (!together(p.h, t.group_h) || !together(p.w, t.group_w)) return false;
  switch (t.kind) {
    case kRows:  // the phases of an output row are stored side by side
      return p.w.stride == t.group_w;
    case kLines:
      return p.w.stride == 1;
    case kFold:  // no column without a tap: its zero times infinity would be a NaN
      return p.w.stride > 1 && p.w.stride <= 64 && p.w.kernel % p.w.stride == 0 &&
             p.w.dilation == 1;
    default:
      return !t.straight || p.group_out() % lanes(p) == 0;
  }
}

bool fits(const Layer& l, const Tiling& tiling, const Problem& p) noexcept {
  // Offsets of a tile's outputs, of an image, and in either order of the weight.
  const double rows = product(l.y_n ? tiling.images * l.y_n : tiling.height * l.y_h);
  const double image = product(p.in_channels, p.d.in, p.h.in, p.w.in);
  const double weight = product(p.taps() + p.d.kernel * p.h.kernel * l.fold, p.out_channels, l.row);
  return std::max({rows, image, weight, product(p.weight_numel())}) <= kInt32 / 2;
}

std::int64_t tiles_of(const Layer& l, const Tiling& tiling, const Problem& p) noexcept {
  return cdiv(p.group_out() * l.fold, l.t.block_out) * p.groups * (l.w.phases / l.t.group_w) *
         (l.h.phases / l.t.group_h) * l.d.out * tiling.tiles;
}

// Programs that a launch has. Where phases differ in taps, every program has to have some of each:
// their number shares no factor with the tiles of a position.
std::int64_t programs_of(const Layer& l, std::int64_t tiles, const Problem& p, const Gpu& gpu) {
  const std::int64_t all = gpu.multiprocessors;
  const auto uneven = [](const Side& side, std::int64_t group) {
    return side.phases > group && side.more != 0;
  };
  if (tiles <= all || (!uneven(l.h, l.t.group_h) && !uneven(l.w, l.t.group_w)))
    return std::min(tiles, all);
  const std::int64_t cycle = cdiv(p.group_out() * l.fold, l.t.block_out) * p.groups *
                             (l.w.phases / l.t.group_w) * (l.h.phases / l.t.group_h);
  std::int64_t programs = all;
  while (programs > 1 && std::gcd(programs, cycle) != 1) --programs;
  return programs > all * 7 / 8 ? programs : all;
}

// The product's time, fitted to 272 measurements on an H200 (11 % root mean square). What a wave of
// tiles takes is bound by shared memory, 128 bytes a clock: tensor cores read both operands there,
// and each of two groups of warps the weights; boxes and weights come into it, outputs leave.
double product_us(const Layer& l, const Tiling& tiling, const Problem& p, const Gpu& gpu) {
  const Traits& t = l.t;
  const Span h = span_of(l.h, t.group_h, t.rows), w = span_of(l.w, t.group_w, 1);
  const double phases = product(l.h.phases / t.group_h, l.w.phases / t.group_w, l.d.phases);
  const double blocks = product(cdiv(p.group_in(), t.block_k), l.d.taps);
  const std::int64_t tiles = tiles_of(l, tiling, p);
  const auto waves = static_cast<double>(cdiv(tiles, programs_of(l, tiles, p, gpu)));
  // Of an average tile:
  const double products = product(l.h.taps, l.w.taps) * blocks / phases;
  const double steps = product(h.steps, l.w.taps) * blocks / phases;
  const double boxes = product(h.tapped, w.shifts) * blocks / phases;
  const double read =
      products * product(t.block_pixels + 2 * t.block_out * (t.block_pixels / 128), 128);
  const double filled =
      boxes * product(tiling.periods(), 1024) + products * product(t.block_out, 128);
  const double outputs = product(t.block_pixels, t.block_out, t.group_h * t.group_w);
  const double bytes = outputs * static_cast<double>(p.element_bytes());
  double stored = bytes * (t.kind == kFold ? 40e-6 : t.kind == kRows ? 12.5e-6 : 17.5e-6);
  if (t.kind == kRows && l.w.out % 2 != 0) stored += outputs * 360e-6;  // one by one
  const double tile = 1.3 + 4.9e-6 * read + 2.2e-6 * filled + 0.044 * steps + stored;
  return 3.9 + waves * clock_us(tile, gpu);
}

double microseconds(const Config& config, const Problem& p, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  if (!suits(t, p)) return kNever;
  const Layer l = layer_of(config, p);
  const Tiling tiling = tiling_of(l);
  // Kernel planes lie behind each other as rows do.
  if (p.d.kernel > 1 && p.h.kernel > 1 && p.weight[2] != p.h.kernel * p.weight[3]) return kNever;
  if (tiling.tiles == 0 || !fits(l, tiling, p) || tiles_of(l, tiling, p) > kInt32) return kNever;
  if ((l.turned || l.packed) && !find_variant("halo_prepare", config.variant->math, p.layout, gpu))
    return kNever;
  double copied = 0;
  if (l.turned) copied += product(2, p.input_numel(), p.element_bytes());
  if (l.packed) copied += product(2, p.weight_numel(), p.element_bytes());
  const double copy = copied > 0 ? kLaunchUs + gpu.memory_us(copied) / 0.72 : 0;
  return copy + std::max(gpu.floor_us(p), product_us(l, tiling, p, gpu));
}

Step prepare(const Layer& l, const Problem& p, const Gpu& gpu, const Config& config,
             std::int64_t packed_at) {
  const Variant& variant = *find_variant("halo_prepare", config.variant->math, p.layout, gpu);
  const std::int64_t pixels = p.d.in * p.h.in * p.w.in, columns = l.w.taps * l.fold;
  const std::int64_t turns =
      cdiv(pixels, kPrepareBlock) * cdiv(l.row, kPrepareBlock) * p.batch * p.groups;
  const std::int64_t planes = p.d.kernel * p.h.kernel;
  const std::int64_t packs =
      cdiv(p.group_out() * planes * columns, kPrepareBlock) * cdiv(l.row, kPrepareBlock) * p.groups;
  const std::int64_t mine = l.turned ? turns : 0;
  halo_prepare::Arguments arguments(p, {.turned = {Role::workspace, 0},
                                        .packed = {Role::workspace, packed_at},
                                        .turns = mine,
                                        .pixels = pixels,
                                        .taps_w = l.w.taps,
                                        .fold = l.fold,
                                        .taps_inside = p.weight[1] != 1,
                                        .row = l.row,
                                        .vectors = p.aligned && pixels % lanes(p) == 0});
  arguments.kernel_h = planes;
  if (p.h.kernel == 1 && p.d.kernel > 1) arguments.weight_h = p.weight[2];
  return step(variant, gpu, {.x = static_cast<std::uint32_t>(mine + (l.packed ? packs : 0))},
              arguments);
}

// Strides of a dense map.
TensorMap dense(const Buffer& buffer, std::initializer_list<std::int64_t> sizes,
                std::initializer_list<std::int64_t> box) noexcept {
  TensorMap map{.buffer = buffer, .rank = static_cast<int>(sizes.size())};
  std::copy(sizes.begin(), sizes.end(), map.sizes.begin());
  std::copy(box.begin(), box.end(), map.box.begin());
  std::int64_t stride = 1;
  for (auto i = sizes.size(); i-- > 0;) {
    map.strides[i] = stride;
    stride *= map.sizes[i];
  }
  return map;
}

std::int64_t reciprocal(std::int64_t d) noexcept { return 65536 / d + (d > 1); }

Program program(const Config& config, const Problem& p, const Gpu& gpu) {
  const Layer l = layer_of(config, p);
  const Traits& t = l.t;
  const Tiling tiling = tiling_of(l);
  const Math element = p.dtype() == DType::f32 ? Math::tf32 : p.math;
  const std::int64_t bytes = p.element_bytes(), columns = p.group_out() * l.fold;
  const std::int64_t turned_bytes =
      l.turned ? p.batch * p.d.in * p.h.in * p.w.in * p.groups * l.row * bytes : 0;
  const std::int64_t packed_at = cdiv(turned_bytes, 256) * 256;
  const std::int64_t taps = l.d.taps * l.h.taps * l.w.taps;

  TensorMap inputs = dense(l.turned ? Buffer{Role::workspace, 0} : Buffer{Role::input},
                           {l.images * p.d.in, l.h.in, p.w.in, p.groups, l.row},
                           {tiling.images, tiling.rows, tiling.width, 1, t.block_k});
  TensorMap weights =
      t.straight ? dense({Role::weight}, {p.groups, p.group_in(), taps, columns},
                         {1, t.block_k, 1, std::min<std::int64_t>(t.block_out, 128 / bytes)})
                 : dense({Role::workspace, packed_at}, {taps, p.groups, columns, l.row},
                         {1, 1, t.block_out, t.block_k});
  if (t.straight)
    weights.swizzle = static_cast<int>(std::min<std::int64_t>(128, t.block_out * bytes));
  inputs.element = weights.element = element;

  const std::int64_t tiles = tiles_of(l, tiling, p);
  const std::int64_t programs = programs_of(l, tiles, p, gpu);
  const std::int64_t tiles_out = cdiv(columns, t.block_out);
  const std::int64_t tiles_w = cdiv(l.w.quotients(), tiling.width);
  const std::int64_t tiles_h = cdiv(l.h.quotients(), tiling.height);
  std::int64_t rest = programs;
  const auto digit = [&rest](std::int64_t size) { return std::exchange(rest, rest / size) % size; };
  const std::int64_t step_out = digit(tiles_out), step_group = digit(p.groups);
  const std::int64_t step_phase_w = digit(l.w.phases / t.group_w);
  const std::int64_t step_phase_h = digit(l.h.phases / t.group_h);
  const std::int64_t step_w = digit(tiles_w), step_h = digit(tiles_h);
  const std::int64_t step_d = digit(l.d.out);
  Arguments arguments(p, {.inputs = inputs,
                          .columns = weights,
                          .tiles = tiles,
                          .tiles_out = tiles_out,
                          .tiles_w = tiles_w,
                          .tiles_h = tiles_h,
                          .tiles_d = l.d.out,
                          .step_out = step_out,
                          .step_group = step_group,
                          .step_phase_w = step_phase_w,
                          .step_phase_h = step_phase_h,
                          .step_w = step_w,
                          .step_h = step_h,
                          .step_d = step_d,
                          .step_n = rest,
                          .tile_w = tiling.width,
                          .tile_h = tiling.height,
                          .tile_n = tiling.images,
                          .blocks = cdiv(p.group_in(), t.block_k),
                          .taps_h = l.h.taps,
                          .taps_w = l.w.taps,
                          .phases_d = l.d.phases,
                          .least_d = l.d.least,
                          .more_d = l.d.more,
                          .extra_d = l.d.extra,
                          .period_d = l.d.period,
                          .apart_d = l.d.apart,
                          .phases_h = l.h.phases,
                          .shift_h = l.h.before / l.h.phases,
                          .rest_h = l.h.before % l.h.phases,
                          .least_h = l.h.least,
                          .more_h = l.h.more,
                          .extra_h = l.h.extra,
                          .period_h = l.h.period,
                          .apart_h = l.h.apart,
                          .phases_w = l.w.phases,
                          .shift_w = l.w.before / l.w.phases,
                          .rest_w = l.w.before % l.w.phases,
                          .least_w = l.w.least,
                          .more_w = l.w.more,
                          .extra_w = l.w.extra,
                          .period_w = l.w.period,
                          .apart_w = l.w.apart,
                          .box_pairs = tiling.pixels() / kPair,
                          .boxes = tiling.boxes,
                          .rows = tiling.rows,
                          .images = l.images,
                          .fold = l.fold,
                          .back = l.w.back,
                          .by_row = reciprocal(tiling.rows),
                          .by_w = reciprocal(tiling.width),
                          .by_fold = reciprocal(l.fold)});
  arguments.out_h = l.h.out;
  arguments.y_n = l.y_n;
  arguments.y_h = l.y_h;

  Program program;
  if (l.turned || l.packed) program.steps.push_back(prepare(l, p, gpu, config, packed_at));
  program.steps.push_back(
      step(*config.variant, gpu, {.x = static_cast<std::uint32_t>(programs)}, arguments));
  program.workspace_bytes = packed_at + (l.packed ? taps * p.groups * columns * l.row * bytes : 0);
  return program;
}

}  // namespace

const Family kFamily{.reason = "deep: an input tile is read once for all its products",
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program};

}  // namespace convt::halo
