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
  const Math math = config.variant->math;
  const double products = math == Math::fp32 ? 1.5 : 1.0;
  const double depth = static_cast<double>(cdiv(problem.group_in(), t.block_in) * t.block_in);
  const double waves = static_cast<double>(cdiv(programs(problem, t), gpu.multiprocessors));
  const double size = product(t.block_pixels, t.block_out) / (128.0 * 64.0);
  const double work = waves * (size * 64 + 32) * (products * depth + 64);
  const double each = problem.dtype() == DType::f32 ? 1.06e-4 : 0.35e-4;
  const double memory = 1.3 * memory_us(problem, gpu), time = clock_us(each * work, gpu);
  return 4.5 + std::max(memory, time) + 0.15 * std::min(memory, time);
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
