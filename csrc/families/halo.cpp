// Deep layers on sm_90; see aot/kernels/halo.py. Two steps: channels of input and weight become
// innermost where they are not, then the product.
#include "families/halo.hpp"

#include <bit>
#include <cmath>
#include <utility>

#include "families/halo_prepare.hpp"

namespace convt::halo {
namespace {

enum Kind : std::int64_t { kNhwc, kRows, kLines, kFold };  // KINDS of aot/families/halo.py

constexpr std::int64_t kPeriod = 8;         // pixels of a swizzle period, a KiB of shared memory
constexpr std::int64_t kMostBoxes = 8;      // barriers for boxes that a kernel has
constexpr std::int64_t kMostPeriods = 255;  // of a box, whose number has so many bits set:
constexpr int kMostBits = 4;
constexpr std::int64_t kMostBox = 256;      // elements of a box along a dimension
constexpr std::int64_t kPrepareBlock = 64;  // BLOCK of halo_prepare

// One axis as the kernel sees it: output q * step + r - back of phase r < phases takes taps k
// with (r + before - k) % phases == 0.
struct Side {
  std::int64_t in, out, taps, phases, before, step, back;
  std::int64_t quotients() const noexcept { return cdiv(out + back, step); }
};

// Boxes and tiles: `images` of `rows` rows of `width` input pixels.
struct Tiling {
  std::int64_t width = 0, height = 0, images = 0, rows = 0, boxes = 0, tiles = 0;
  std::int64_t periods() const noexcept { return images * rows * width / kPeriod; }
};

struct Layer {
  Traits t;
  Side h, w;
  std::int64_t images, y_n, y_h;
  std::int64_t fold;  // width phases that are columns
  std::int64_t row;   // input channels of a pixel and group, zeros included
  bool turned;        // whether the input is copied,
  bool packed;        // and the weight
};

// [begin, end) of the input shifts of a phase; equal: it has no taps.
struct Shifts {
  std::int64_t begin, end;
};

Shifts shifts_of(const Side& side, std::int64_t phase) noexcept {
  const std::int64_t residue = phase + side.before, end = residue / side.phases + 1;
  const std::int64_t count = cdiv(side.taps - residue % side.phases, side.phases);
  return {end - std::max<std::int64_t>(count, 0), end};
}

// What the tiles of a side's phases, `group` of them each, come to.
struct Span {
  std::int64_t most = 0;    // shifts of a tile, at most
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
      taps += shifts.end - shifts.begin;
      span.steps += cdiv(shifts.end - shifts.begin, rows);
    }
    span.most = std::max(span.most, high - low);
    if (taps > 0) span.shifts += high - low, ++span.tapped;
  }
  return span;
}

Layer layer_of(const Config& config, const Problem& p) noexcept {
  const Traits t = traits(*config.variant);
  const auto side = [](const Axis& a) {
    return Side{a.in, a.out(), a.kernel, a.stride, a.padding, a.stride, 0};
  };
  const std::int64_t row = cdiv(p.group_in(), lanes(p)) * lanes(p);
  Layer l{.t = t,
          .h = side(p.h),
          .w = side(p.w),
          .images = p.batch,
          .y_n = p.out_channels * p.h.out() * p.w.out(),
          .y_h = p.layout == Layout::nhwc ? p.w.out() * p.out_channels : p.w.out(),
          .fold = 1,
          .row = row,
          .turned = p.layout == Layout::nchw || row != p.group_in() || !p.aligned ||
                    p.dtype() == DType::f32,  // rounded with care for the largest numbers, NaNs
          .packed = !t.straight};
  if (p.h == Axis{}) {  // images of one row are the rows of one image
    l.h.in = l.h.out = p.batch;
    l.images = 1;
    l.y_h = std::exchange(l.y_n, 0);
  }
  if (t.kind == kFold) {
    l.fold = p.w.stride;
    l.w.taps = cdiv(p.w.kernel, l.fold);
    l.w.phases = 1;
    l.w.before = 0;
    l.w.back = p.w.padding;
  }
  return l;
}

// The tiling of the fewest tiles, halo rows counted; among equals of the widest.
Tiling tiling_of(const Layer& l) noexcept {
  const Traits& t = l.t;
  const std::int64_t across = l.w.quotients(), down = l.h.quotients();
  const std::int64_t halo = std::max<std::int64_t>(span_of(l.h, t.group_h, 1).most, 1) - 1;
  const std::int64_t grain = t.kind == kLines ? 64 : kPeriod;
  Tiling best;
  double least = kNever;
  for (std::int64_t width = grain; width <= std::min(kMostBox, t.block_pixels); width += grain) {
    const std::int64_t room = t.block_pixels / width;  // lines of a tile
    Tiling now{.width = width, .height = std::min(room, down), .images = 1};
    now.rows = now.height + halo;
    if (now.height == down) now.images = std::min(l.images, (room - down) / now.rows + 1);
    // Tiles may be read beyond their box, but not beyond the memory of all boxes.
    const std::int64_t beyond =
        std::max<std::int64_t>(0, cdiv(halo * width + t.block_pixels, kPeriod) - now.periods());
    now.boxes = std::min(kMostBoxes, (t.periods - beyond) / now.periods());
    if (now.rows > kMostBox || now.periods() > kMostPeriods || now.boxes < 2 ||
        std::popcount(static_cast<std::uint64_t>(now.periods())) > kMostBits)
      continue;
    now.tiles = cdiv(across, width) * cdiv(down, now.height) * cdiv(l.images, now.images);
    const double box =
        static_cast<double>(now.periods() * kPeriod) / static_cast<double>(t.block_pixels);
    const double cost = static_cast<double>(now.tiles) * (1 + 0.15 * box);
    if (cost <= least) least = cost, best = now;
  }
  return best;
}

const char* unsupported(const Problem& p) noexcept {
  if (const char* why = has_depth(p)) return why;
  if (p.h.dilation != 1 && p.h.kernel != 1) return "it is dilated";
  if (p.w.dilation != 1 && p.w.kernel != 1) return "it is dilated";
  return too_large(p);
}

// Whether the layer suits what the variant is compiled for.
bool suits(const Traits& t, const Problem& p) noexcept {
  if (p.h.stride % t.group_h != 0 || p.w.stride % t.group_w != 0) return false;
  switch (t.kind) {
    case kRows:  // the phases of an output row are stored side by side
      return p.w.stride == t.group_w;
    case kLines:
      return p.w.stride == 1;
    case kFold:  // no column without a tap: its zero times infinity would be a NaN
      return p.w.stride > 1 && p.w.stride <= 64 && p.w.kernel % p.w.stride == 0;
    default:
      return !t.straight || p.group_out() % lanes(p) == 0;
  }
}

bool fits(const Layer& l, const Tiling& tiling, const Problem& p) noexcept {
  // Offsets of a tile's outputs, of an image, and in either order of the weight.
  const double rows = product(l.y_n ? tiling.images * l.y_n : tiling.height * l.y_h);
  const double image = product(p.in_channels, p.h.in, p.w.in);
  const double weight = product(p.taps() + p.h.kernel * l.fold, p.out_channels, l.row);
  return std::max({rows, image, weight, product(p.weight_numel())}) <= kInt32 / 2;
}

std::int64_t tiles_of(const Layer& l, const Tiling& tiling, const Problem& p) noexcept {
  return cdiv(p.group_out() * l.fold, l.t.block_out) * p.groups * (l.w.phases / l.t.group_w) *
         (l.h.phases / l.t.group_h) * tiling.tiles;
}

// The product's time, fitted to 272 measurements on an H200 (11 % root mean square). What a wave of
// tiles takes is bound by shared memory, 128 bytes a clock: tensor cores read both operands there,
// and each of two groups of warps the weights; boxes and weights come into it, outputs leave.
double product_us(const Layer& l, const Tiling& tiling, const Problem& p, const Gpu& gpu) {
  const Traits& t = l.t;
  const Span h = span_of(l.h, t.group_h, t.rows), w = span_of(l.w, t.group_w, 1);
  const auto phases = static_cast<double>((l.h.phases / t.group_h) * (l.w.phases / t.group_w));
  const auto blocks = static_cast<double>(cdiv(p.group_in(), t.block_k));
  const double waves = std::ceil(static_cast<double>(tiles_of(l, tiling, p)) /
                                 static_cast<double>(gpu.multiprocessors));
  // Of an average tile:
  const double products = product(l.h.taps, l.w.taps) * blocks / phases;
  const double steps = product(h.steps, l.w.taps) * blocks / phases;
  const double boxes = product(h.tapped, w.shifts) * blocks / phases;
  const double read =
      products * product(t.block_pixels + 2 * t.block_out * (t.block_pixels / 128), 128);
  const double filled =
      boxes * product(tiling.periods(), 1024) + products * product(t.block_out, 128);
  const double outputs =
      product(t.block_pixels, t.block_out, t.group_h * t.group_w, p.element_bytes());
  const double stored = outputs * (t.kind == kFold ? 40e-6 : t.kind == kRows ? 12.5e-6 : 17.5e-6);
  const double tile = 1.3 + 4.9e-6 * read + 2.2e-6 * filled + 0.044 * steps + stored;
  return 3.9 + waves * clock_us(tile, gpu);
}

double microseconds(const Config& config, const Problem& p, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  if (!suits(t, p)) return kNever;
  const Layer l = layer_of(config, p);
  const Tiling tiling = tiling_of(l);
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
  const std::int64_t pixels = p.h.in * p.w.in, columns = l.w.taps * l.fold;
  const std::int64_t turns =
      cdiv(pixels, kPrepareBlock) * cdiv(l.row, kPrepareBlock) * p.batch * p.groups;
  const std::int64_t packs = cdiv(p.group_out() * p.h.kernel * columns, kPrepareBlock) *
                             cdiv(l.row, kPrepareBlock) * p.groups;
  const std::int64_t mine = l.turned ? turns : 0;
  const halo_prepare::Arguments arguments(p, {.turned = {Role::workspace, 0},
                                              .packed = {Role::workspace, packed_at},
                                              .turns = mine,
                                              .pixels = pixels,
                                              .taps_w = l.w.taps,
                                              .fold = l.fold,
                                              .taps_inside = p.weight[1] != 1,
                                              .row = l.row,
                                              .vectors = p.aligned && pixels % lanes(p) == 0});
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
      l.turned ? p.batch * p.h.in * p.w.in * p.groups * l.row * bytes : 0;
  const std::int64_t packed_at = cdiv(turned_bytes, 256) * 256;
  const std::int64_t taps = l.h.taps * l.w.taps;

  TensorMap inputs = dense(l.turned ? Buffer{Role::workspace, 0} : Buffer{Role::input},
                           {l.images, l.h.in, p.w.in, p.groups, l.row},
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
  Arguments arguments(p, {.inputs = inputs,
                          .columns = weights,
                          .tiles = tiles,
                          .tiles_out = cdiv(columns, t.block_out),
                          .tiles_w = cdiv(l.w.quotients(), tiling.width),
                          .tiles_h = cdiv(l.h.quotients(), tiling.height),
                          .tile_w = tiling.width,
                          .tile_h = tiling.height,
                          .tile_n = tiling.images,
                          .blocks = cdiv(p.group_in(), t.block_k),
                          .taps_h = l.h.taps,
                          .taps_w = l.w.taps,
                          .phases_h = l.h.phases,
                          .phases_w = l.w.phases,
                          .before_w = l.w.before,
                          .box_periods = tiling.periods(),
                          .row_periods = tiling.width / kPeriod,
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
  const auto programs =
      static_cast<std::uint32_t>(std::min<std::int64_t>(tiles, gpu.multiprocessors));
  program.steps.push_back(step(*config.variant, gpu, {.x = programs}, arguments));
  program.workspace_bytes = packed_at + (l.packed ? taps * p.groups * columns * l.row * bytes : 0);
  return program;
}

}  // namespace

const Family kFamily{.reason = "deep: an input tile is read once for all its products",
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program};

}  // namespace convt::halo
