// Inputs with one element per axis: a product with a cropped weight; see aot/kernels/point.py.
#include "families/point.hpp"

#include "families/slices.hpp"

namespace convt::point {
namespace {

std::int64_t points(const Problem& p) noexcept { return p.d.out() * p.h.out() * p.w.out(); }

struct Tiles {
  std::int64_t columns;  // of a group
  std::int64_t across;   // programs for them
  std::int64_t images;   // and for images and groups
  std::int64_t slices;   // of the input channels
  std::int64_t slice_in;
  double us;
};

// The tiles for a given number of slices, and their time. A warp has 32 columns. For each input
// channel it loads their weights, one address each, and the images' inputs, 16 bytes at a time: the
// multiprocessor's one path to shared memory takes three cycles for those. A step waits for its
// weights.
Tiles cut(const Config& config, const Problem& p, const Gpu& gpu, std::int64_t slices) {
  const Variant& variant = *config.variant;
  const Traits t = traits(variant);
  Tiles n{};
  n.columns = p.group_out() * points(p);
  n.across = cdiv(n.columns, t.columns);
  n.images = cdiv(p.batch, t.images) * p.groups;
  n.slice_in = cdiv(cdiv(p.group_in(), slices), t.block_in) * t.block_in;
  n.slices = cdiv(p.group_in(), n.slice_in);
  const double rows = static_cast<double>(t.columns) / (32.0 * variant.warps);
  const double images = static_cast<double>(t.images);
  const double cycles = std::max(0.75 * images + rows, (rows * images + images / 4 + 4 * rows) / 4);
  const double work = busy_us(variant, gpu, product(n.across, n.images, n.slices),
                              cycles * static_cast<double>(n.slice_in));
  const double waits = 0.4 * static_cast<double>(n.slice_in / t.block_in);
  // It takes four programs a multiprocessor to have enough of memory's latency under way.
  const double under_way = product(n.across, n.images, n.slices) / (4.0 * gpu.multiprocessors);
  const double read = product(p.in_channels, n.columns, p.element_bytes());
  const double memory = gpu.memory_us(read) / 0.9;
  n.us = std::max({work, waits, memory / std::min(1.0, under_way), gpu.floor_us(p)}) + kLaunchUs +
         slices_us(p, gpu, n.slices);
  return n;
}

Tiles tiles(const Config& config, const Problem& p, const Gpu& gpu) {
  const std::int64_t blocks = cdiv(p.group_in(), traits(*config.variant).block_in);
  if (config.knobs[0] > 0)
    return cut(config, p, gpu, std::min<std::int64_t>(config.knobs[0], blocks));
  Tiles best = cut(config, p, gpu, 1);
  for (std::int64_t slices = 2; slices <= std::min<std::int64_t>(blocks / 2, kMostSlices); ++slices)
    if (const Tiles n = cut(config, p, gpu, slices); n.us < best.us) best = n;
  return best;
}

const char* unsupported(const Problem& p) noexcept {
  if (p.d.in != 1 || p.h.in != 1 || p.w.in != 1) return "its input is larger than 1 on an axis";
  if (const char* why = too_large(p)) return why;
  if (product(p.batch, p.in_channels) > kInt32 || product(p.output_numel(), 1) > kInt32 ||
      product(64, p.group_out(), p.taps()) > kInt32)
    return "offsets need more than 32 bits";
  return nullptr;
}

double microseconds(const Config& config, const Problem& p, const Gpu& gpu) {
  const Tiles n = tiles(config, p, gpu);
  return n.images > kGridLayers ? kNever : n.us;
}

Program program(const Config& config, const Problem& p, const Gpu& gpu) {
  const Tiles n = tiles(config, p, gpu);
  const Buffer partial =
      n.slices > 1 ? Buffer{.role = Role::workspace} : Buffer{.role = Role::none};
  const Arguments arguments(p, {.partial = partial,
                                .columns = n.columns,
                                .channels_innermost = p.weight[1] == 1 && p.group_out() > 1,
                                .slice_in = n.slice_in,
                                .slices = n.slices});
  Program out = one_launch(config, gpu, grid_of(n.across, n.images, n.slices), arguments);
  if (n.slices > 1) add_slices(out, *config.variant, p, gpu, n.slices);
  return out;
}

}  // namespace

const Family kFamily{.reason = "input of one element: a product with the weight as it lies",
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program,
                     .knobs = {"slices"}};

}  // namespace convt::point
