// The general family: one output phase per program; see aot/kernels/phase.py.
#include "families/phase.hpp"

#include <bit>

namespace convt::phase {
namespace {

std::int64_t shifted_up(std::int64_t a, int log2) noexcept { return ((a - 1) >> log2) + 1; }

// The pixels of a program: a box of 2^log2_h x 2^log2_w quotients (outputs of one phase), in as
// many images as the rest of the tile holds.
struct Box {
  int log2_h = 0;
  int log2_w = 0;
  std::int64_t images(std::int64_t pixels) const noexcept { return pixels >> (log2_h + log2_w); }
};

// Of the boxes with `pixels` quotients, the one that needs the fewest programs; among equals the
// widest, because its memory accesses are the longest.
Box best_box(const Problem& problem, std::int64_t pixels) noexcept {
  const std::int64_t across = problem.w.phases().quotients, down = problem.h.phases().quotients;
  const int log2_pixels = std::countr_zero(static_cast<std::uint64_t>(pixels));
  Box best;
  std::int64_t fewest = std::numeric_limits<std::int64_t>::max();
  for (int log2_w = log2_pixels; log2_w >= 0; --log2_w)
    for (int log2_h = log2_pixels - log2_w; log2_h >= 0; --log2_h) {
      const std::int64_t count = shifted_up(across, log2_w) * shifted_up(down, log2_h) *
                                 shifted_up(problem.batch, log2_pixels - log2_w - log2_h);
      if (count < fewest) fewest = count, best = {.log2_h = log2_h, .log2_w = log2_w};
    }
  return best;
}

// Whether 32 bits hold the offset of every access that a program makes, counted from its first
// image. Inputs are addressed from the first tap of a phase on, so offsets reach beyond the image
// by as much as the kernel does.
bool narrow_enough(const Problem& problem, std::int64_t images) noexcept {
  const double reach_h = product(problem.h.kernel, problem.h.dilation);
  const double reach_w = product(problem.w.kernel, problem.w.dilation);
  const double x_image =
      product(problem.in_channels, problem.h.in + reach_h, problem.w.in + reach_w);
  const double y_image = product(problem.out_channels, problem.h.out(), problem.w.out());
  return product(images, std::max(x_image, y_image)) <= kInt32;
}

std::int64_t programs(const Problem& problem, const Traits& t, const Box& box) noexcept {
  return shifted_up(problem.w.phases().quotients, box.log2_w) *
         shifted_up(problem.h.phases().quotients, box.log2_h) *
         cdiv(problem.batch, box.images(t.block_pixels)) * cdiv(problem.group_out(), t.block_out) *
         problem.groups * problem.h.stride * problem.w.stride;
}

const char* unsupported(const Problem& problem) noexcept {
  if (const char* why = has_depth(problem)) return why;
  // The kernel multiplies residues and inverses, both under the stride, in 32 bits.
  if (std::max(problem.h.stride, problem.w.stride) > 32768) return "a stride is over 32768";
  return too_large(problem);
}

// us = start + memory * (bytes / bandwidth) + (tap * taps of a phase + program) * work, where work
// is the waves of programs times the operands that a program loads for all input channels.
struct Fit {
  double start, memory, tap, program;
};

Fit fit_of(Math math, Layout layout) noexcept {
  const bool contiguous = layout == Layout::nchw;
  switch (math) {
    case Math::fp32:
      return contiguous ? Fit{.start = 5, .memory = 3.0, .tap = 2.1e-4, .program = 1.2e-4}
                        : Fit{.start = 6, .memory = 0.5, .tap = 2.5e-4, .program = 0.3e-4};
    case Math::tf32:
    case Math::fp16:
      return contiguous ? Fit{.start = 5, .memory = 3.0, .tap = 1.05e-4, .program = 1.2e-4}
                        : Fit{.start = 6, .memory = 0.5, .tap = 1.47e-4, .program = 0.1e-4};
    default:
      return contiguous ? Fit{.start = 14, .memory = 2.8, .tap = 0.45e-4, .program = 0.8e-4}
                        : Fit{.start = 7, .memory = 0.2, .tap = 0.53e-4, .program = 0.25e-4};
  }
}

double microseconds(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  const Box box = best_box(problem, t.block_pixels);
  const std::int64_t count = programs(problem, t, box);
  if ((t.aligned && !vectors_fit(problem)) ||
      (!t.wide && !narrow_enough(problem, box.images(t.block_pixels))) ||
      !weight_rows_fit(problem, t.block_in) || count > kInt32 ||
      (config.variant->math == Math::fp32 && problem.needed_math() != Math::fp32 &&
       !t.wide))  // more accurate products only take longer
    return kNever;
  const std::int64_t depth = cdiv(problem.group_in(), t.block_in) * t.block_in;
  // Wide and unaligned loads take more instructions.
  const double slowdown = (t.aligned ? 1.0 : 2.0) * (t.wide ? 2.0 : 1.0);
  const double work = static_cast<double>(cdiv(count, gpu.multiprocessors)) *
                      product(t.block_pixels + t.block_out, depth) * slowdown;
  const double taps =
      static_cast<double>(problem.taps()) / product(problem.h.stride, problem.w.stride);
  const Fit fit = fit_of(config.variant->math, problem.layout);
  const double memory = memory_us(problem, gpu);
  const double math = clock_us((fit.tap * taps + fit.program) * work, gpu);
  return fit.start + std::max(fit.memory * memory + math, 1.05 * memory + 0.1 * math);
}

Program program(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  const Box box = best_box(problem, t.block_pixels);
  const Arguments arguments(problem, {.log2_tile_h = box.log2_h, .log2_tile_w = box.log2_w});
  return one_launch(config, gpu, grid_of(programs(problem, t, box)), arguments);
}

}  // namespace

const Family kFamily{.reason = "general kernel, the tile of least modelled time",
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program};

}  // namespace convt::phase
