// kernel == stride without padding, channels_last; see aot/kernels/pixel_shuffle_nhwc.py.
#include "families/pixel_shuffle_nhwc.hpp"

#include "families/blocks.hpp"

namespace convt::pixel_shuffle_nhwc {
namespace {

const char* unsupported(const Problem& problem) noexcept {
  return not_blocks(problem, Layout::nhwc);
}

// Of a kernel row: kernel columns and output channels of a group.
std::int64_t columns(const Problem& problem) noexcept {
  return problem.w.kernel * problem.group_out();
}

std::int64_t programs(const Problem& problem, const Traits& t) noexcept {
  return cdiv(columns(problem), t.block_out) * kernel_rows(problem) * problem.groups *
         cdiv(problem.batch * pixels(problem), t.block_pixels);
}

// Whether a program's offsets fit 32 bits, from its first pixel on.
bool offsets_fit(const Problem& problem, const Traits& t) noexcept {
  const double line = product(problem.w.out(), problem.out_channels);
  const double slice = product(problem.d.kernel, problem.h.out());
  const std::int64_t rows = cdiv(t.block_pixels, problem.w.in) + 1;
  const std::int64_t slices = cdiv(rows, problem.h.in) + 1;
  return (product(rows, problem.h.kernel) + product(slices, slice)) * line <= kInt32 &&
         product(t.block_pixels + 1, problem.in_channels) <= kInt32 &&
         product(problem.batch, pixels(problem)) <= kInt32 / 2;
}

double microseconds(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  if (!vectors_fit(problem) || !weight_rows_fit(problem, t.block_in) || !offsets_fit(problem, t) ||
      programs(problem, t) > kInt32)
    return kNever;
  // Of a program's 128 x 64 outputs: fitted on an H200. 32-bit operands are split into pieces.
  const bool split = problem.dtype() == DType::f32;
  const double depth =
      static_cast<double>(problem.group_in()) * (config.variant->math == Math::fp32 ? 1.5 : 1.0);
  const double waves = static_cast<double>(cdiv(programs(problem, t), gpu.multiprocessors));
  const double size = product(t.block_pixels, t.block_out) / (128.0 * 64.0);
  const double work = split ? std::max(waves * size * (2.9 + 0.022 * depth), 0.018 * depth)
                            : waves * (1.5 * size + 0.002 * depth);
  return 3.0 + std::max(1.1 * memory_us(problem, gpu), clock_us(work, gpu));
}

Program program(const Config& config, const Problem& problem, const Gpu& gpu) {
  const std::int64_t count = programs(problem, traits(*config.variant));
  return one_launch(config, gpu, grid_of(count),
                    Arguments(problem, {.pixels = problem.batch * pixels(problem)}));
}

}  // namespace

const Family kFamily{.reason = kBlocksReason,
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program};

}  // namespace convt::pixel_shuffle_nhwc
