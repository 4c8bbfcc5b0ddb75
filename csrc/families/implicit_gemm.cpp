// Several taps an output, any geometry; see aot/kernels/implicit_gemm.py. Two steps: channels of
// input and weight become innermost, then the product.
#include "families/implicit_gemm.hpp"

#include <bit>
#include <cmath>

#include "families/divisor.hpp"
#include "families/implicit_gemm_prepare.hpp"
#include "families/slices.hpp"

namespace convt::implicit_gemm {
namespace {

constexpr std::int64_t kPrepareBlock = 64;  // BLOCK and WIDE of implicit_gemm_prepare
constexpr std::int64_t kPrepareColumns = 32;

// The width as the kernel sees it: output q * step - back + r of phase r.
struct Width {
  std::int64_t kernel, stride, padding, dilation;
  Phases phases;
  std::int64_t step, back;
};

struct Layer {
  Traits t;
  std::int64_t fold;  // width phases that are columns
  Width w;
  std::int64_t taps_d, taps_h, taps_w;  // of the phase that has the most
  std::int64_t row;                     // input channels of a group, zeros included
  bool turned;                          // whether the input is copied
  std::int64_t blocks;                  // of input channels
  std::int64_t out_tiles;
  std::int64_t pixels;      // of all images: quotients
  std::int64_t planes;      // numbers that a weight is split into
  std::int64_t slices = 1;  // programs that share a sum

  std::int64_t taps() const noexcept { return taps_d * taps_h * taps_w; }
  std::int64_t columns() const noexcept { return out_tiles * t.block_out; }
  std::int64_t tap_size() const noexcept { return blocks * columns() * t.block_in * planes; }
};

bool can_fold(const Traits& t, const Problem& p) noexcept {
  if (p.w.stride == 1 || p.w.dilation != 1 || p.w.kernel == 1) return false;
  if (t.fold == 0) return p.groups == 1;
  return std::bit_ceil(static_cast<std::uint64_t>(p.w.stride)) ==
         static_cast<std::uint64_t>(t.fold);
}

Layer layer_of(const Config& config, const Problem& p, bool folded) noexcept {
  const Variant& variant = *config.variant;
  Layer l{};
  l.t = traits(variant);
  l.fold = folded ? p.w.stride : 1;
  if (folded) {
    const std::int64_t first = p.w.padding / p.w.stride;  // quotient of output 0
    const std::int64_t last = (p.w.out() - 1 + p.w.padding) / p.w.stride;
    l.w = {
        .kernel = cdiv(p.w.kernel, p.w.stride),
        .stride = 1,
        .padding = first,
        .dilation = 1,
        .phases = {.gcd = 1, .period = 1, .inverse = 0, .shift = 1, .quotients = last - first + 1},
        .step = p.w.stride,
        .back = p.w.padding - first * p.w.stride};
    l.taps_w = l.w.kernel;
  } else {
    l.w = {.kernel = p.w.kernel,
           .stride = p.w.stride,
           .padding = p.w.padding,
           .dilation = p.w.dilation,
           .phases = p.w.phases(),
           .step = p.w.stride,
           .back = 0};
    l.taps_w = p.w.most_taps();
  }
  l.taps_d = p.d.most_taps();
  l.taps_h = p.h.most_taps();
  l.row = cdiv(p.group_in(), lanes(p)) * lanes(p);
  l.turned = p.layout == Layout::nchw || l.row != p.group_in() || !p.aligned ||
             variant.math == Math::tf32;  // rounded
  l.blocks = cdiv(l.row, l.t.block_in);
  const std::int64_t columns = p.group_out() * (l.t.fold == 0 ? l.fold : l.t.fold);
  l.out_tiles = cdiv(columns, l.t.block_out);
  l.pixels = p.batch * p.d.phases().quotients * p.h.phases().quotients * l.w.phases.quotients;
  l.planes = variant.math == Math::fp32 ? 2 : 1;
  return l;
}

std::int64_t programs(const Layer& l, const Problem& p) noexcept {
  return cdiv(l.pixels, l.t.block_pixels) * p.groups * p.d.stride * p.h.stride * l.w.stride *
         l.out_tiles * l.slices;
}

std::int64_t packed_elements(const Layer& l, const Problem& p) noexcept {
  return p.groups * p.d.stride * p.h.stride * l.w.stride * l.taps() * l.tap_size();
}

// Whether 32 bits hold every offset.
bool fits(const Layer& l, const Problem& p) noexcept {
  const std::int64_t image_pixels = l.pixels / p.batch;
  const std::int64_t images = cdiv(l.t.block_pixels, image_pixels) + 1;
  const auto reach = [](const Axis& a) { return a.in + 2.0 * product(a.kernel, a.dilation); };
  const double x_image = product(p.groups * l.row, reach(p.d), reach(p.h), reach(p.w));
  const double y_image = product(p.out_channels, p.d.out(), p.h.out(), p.w.out());
  return std::max({product(std::min(images, p.batch), std::max(x_image, y_image)),
                   product(l.pixels + l.t.block_pixels), product(l.taps(), l.tap_size()),
                   product(p.weight_numel()), product(programs(l, p))}) <= kInt32;
}

const char* unsupported(const Problem& p) noexcept {
  if (std::max({p.d.stride, p.h.stride, p.w.stride}) > 32768) return "a stride is over 32768";
  if (p.d.has_one_tap() && p.h.has_one_tap() && p.w.has_one_tap())
    return "outputs have one tap at most";
  return too_large(p);
}

// Steps of an average program.
double steps_of(const Layer& l, const Problem& p) noexcept {
  const double taps = product(p.d.kernel, p.h.kernel, l.fold > 1 ? l.taps_w : p.w.kernel) /
                      product(p.d.stride, p.h.stride, l.w.stride);
  return taps * static_cast<double>(l.blocks) / static_cast<double>(l.slices);
}

// The product's time, fitted to 600 measurements through sm_89's PTX on an H200 (13 % root mean
// square). Programs that are on a multiprocessor together share its tensor cores and its path to
// shared memory; a step of one alone waits for its copies. Outputs that are not neighbours in
// memory are stored a sector each.
double product_us(const Layer& l, const Config& config, const Problem& p, const Gpu& gpu) {
  const Variant& variant = *config.variant;
  const Image& image = *variant.image(gpu.image.arch, gpu.image.kind);
  const std::int64_t resident = gpu.resident(image, variant.warps) / gpu.multiprocessors;
  const std::int64_t each = cdiv(programs(l, p), gpu.multiprocessors);
  const bool halves = p.element_bytes() == 2;
  const double products =
      product(l.t.block_pixels, l.t.block_out, l.t.block_in, l.planes == 2 ? 3 : 1);
  const double bytes =
      product(l.t.block_pixels + l.t.block_out * l.planes, l.t.block_in, p.element_bytes());
  const double step = products * (halves ? 0.5e-6 : 1e-6) + bytes * 1e-5;
  const double apart = l.t.fold == 1 ? 0.5 * static_cast<double>(p.w.stride - 1) : 0;
  const double stored = product(l.t.block_pixels, l.t.block_out, 1.2e-4) * (1 + apart);
  const auto together = [&](std::int64_t count) {
    const auto n = static_cast<double>(count);
    return 3 + n * stored + steps_of(l, p) * std::max(0.45, n * step);
  };
  const double full = static_cast<double>(each / resident) * together(resident);
  return clock_us(full + (each % resident ? together(each % resident) : 0), gpu);
}

double modelled(const Layer& l, const Config& config, const Problem& p, const Gpu& gpu) {
  if (!fits(l, p)) return kNever;
  double copied = 2 * product(p.weight_numel(), p.element_bytes());
  if (l.turned) copied += product(2, p.input_numel(), p.element_bytes());
  const double copy = kLaunchUs + gpu.memory_us(copied) / 0.7;
  return copy + std::max(gpu.floor_us(p), product_us(l, config, p, gpu)) + kLaunchUs +
         slices_us(p, gpu, l.slices);
}

struct Best {
  Layer layer;
  double us = kNever;
};

// The layer with the fold and the slices that are asked for, else the quickest.
Best best_layer(const Config& config, const Problem& p, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  const bool may_fold = can_fold(t, p), must_fold = t.fold > 1 || config.knobs[0] == 2;
  const std::int64_t asked = config.knobs[1];
  Best best;
  for (const bool folded : {false, true}) {
    if (folded ? (!may_fold || t.fold == 1 || config.knobs[0] == 1) : must_fold) continue;
    Layer l = layer_of(config, p, folded);
    const auto most = static_cast<std::int64_t>(steps_of(l, p)) / 4;
    for (l.slices = asked ? asked : 1; l.slices <= std::max(asked, kMostSlices); l.slices *= 2) {
      if (l.slices > 1 &&
          (p.dtype() != DType::f32 || l.slices > most || p.output_numel() > kInt32 / 2))
        break;
      if (const double us = modelled(l, config, p, gpu); us < best.us) best = {l, us};
      if (asked) break;
    }
  }
  return best;
}

double microseconds(const Config& config, const Problem& p, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  if (t.fold == 0 && t.vectors && p.group_out() % lanes(p) != 0) return kNever;
  if (!find_variant("implicit_gemm_prepare", config.variant->math, p.layout, gpu)) return kNever;
  return best_layer(config, p, gpu).us;
}

// Where operands lie in the workspace, behind the slices.
struct Place {
  std::int64_t turned, packed, end;
};

Place place_of(const Layer& l, const Problem& p) noexcept {
  constexpr std::int64_t kAlignment = 256;
  const auto aligned = [](std::int64_t bytes) { return cdiv(bytes, kAlignment) * kAlignment; };
  const std::int64_t pixels = p.batch * p.d.in * p.h.in * p.w.in;
  Place place{};
  if (l.slices > 1) place.turned = aligned(l.slices * p.output_numel() * 4);
  place.packed = place.turned;
  if (l.turned) place.packed += aligned(pixels * p.groups * l.row * p.element_bytes());
  place.end = place.packed + packed_elements(l, p) * p.element_bytes();
  return place;
}

Step prepare(const Layer& l, const Problem& p, const Gpu& gpu, const Config& config,
             const Place& place) {
  const Variant& variant =
      *find_variant("implicit_gemm_prepare", config.variant->math, p.layout, gpu);
  const std::int64_t pixels = p.d.in * p.h.in * p.w.in;
  const std::int64_t turns = cdiv(pixels, kPrepareBlock) * cdiv(l.row, kPrepareBlock) * p.batch *
                             p.groups * (l.turned ? 1 : 0);
  const std::int64_t packs =
      cdiv(l.columns(), kPrepareColumns) * l.blocks * p.d.kernel * p.h.kernel * p.groups;
  const implicit_gemm_prepare::Arguments arguments(
      p, {.turned = {.role = Role::workspace, .offset = place.turned},
          .packed = {.role = Role::workspace, .offset = place.packed},
          .turns = turns,
          .pixels = pixels,
          .row = l.row,
          .fold = l.fold,
          .fold_columns = l.t.fold,
          .taps_h = l.taps_h,
          .taps_w = l.taps_w,
          .phase_size = l.taps() * l.tap_size(),
          .tap_size = l.tap_size(),
          .block_out = l.t.block_out,
          .columns = l.columns(),
          .depth = l.t.block_in});
  return step(variant, gpu, grid_of(turns + packs), arguments);
}

Program program(const Config& config, const Problem& p, const Gpu& gpu) {
  const Layer l = best_layer(config, p, gpu).layer;
  const Place place = place_of(l, p);
  Buffer inputs{.role = Role::input};
  if (l.turned) inputs = {.role = Role::workspace, .offset = place.turned};
  Arguments arguments(p, {.inputs = inputs,
                          .columns = {.role = Role::workspace, .offset = place.packed},
                          .row = l.row,
                          .fold = l.fold,
                          .step_w = l.w.step,
                          .back_w = l.w.back,
                          .folded_w = p.w.kernel,
                          .taps_h = l.taps_h,
                          .taps_w = l.taps_w,
                          .phase_size = l.taps() * l.tap_size(),
                          .tap_size = l.tap_size(),
                          .out_tiles = l.out_tiles,
                          .slices = l.slices,
                          .slice_size = p.output_numel(),
                          .by_tiles = divisor(l.out_tiles),
                          .by_groups = divisor(p.groups),
                          .by_stride_d = divisor(p.d.stride),
                          .by_stride_h = divisor(p.h.stride),
                          .by_stride_w = divisor(l.w.stride),
                          .by_d = divisor(p.d.phases().quotients),
                          .by_h = divisor(p.h.phases().quotients),
                          .by_w = divisor(l.w.phases.quotients)});
  arguments.x_w = p.groups * l.row;
  arguments.x_h = arguments.x_w * p.w.in;
  arguments.x_d = arguments.x_h * p.h.in;
  arguments.x_n = arguments.x_d * p.d.in;
  arguments.kernel_w = l.w.kernel;
  arguments.stride_w = l.w.stride;
  arguments.padding_w = l.w.padding;
  arguments.dilation_w = l.w.dilation;
  arguments.gcd_w = l.w.phases.gcd;
  arguments.tap_period_w = l.w.phases.period;
  arguments.tap_inverse_w = l.w.phases.inverse;
  arguments.tap_shift_w = l.w.phases.shift;
  arguments.quotients_w = l.w.phases.quotients;
  if (l.slices > 1) {
    arguments.y = Buffer{.role = Role::workspace};
    arguments.has_bias = 0;
  }
  Program program;
  program.steps.push_back(prepare(l, p, gpu, config, place));
  program.steps.push_back(step(*config.variant, gpu, grid_of(programs(l, p)), arguments));
  if (l.slices > 1) add_slices(program, *config.variant, p, gpu, l.slices);
  program.workspace_bytes = place.end;
  return program;
}

}  // namespace

const Family kFamily{.reason = "several taps an output: a matrix product over taps and channels",
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program,
                     .knobs = {"fold", "slices"}};

}  // namespace convt::implicit_gemm
