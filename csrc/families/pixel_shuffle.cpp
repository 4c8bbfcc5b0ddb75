// kernel == stride without padding; see aot/kernels/pixel_shuffle.py.
#include "families/pixel_shuffle.hpp"

#include "families/blocks.hpp"

namespace convt::pixel_shuffle {
namespace {

const char* unsupported(const Problem& problem) noexcept {
  return not_blocks(problem, Layout::nchw);
}

std::int64_t programs(const Problem& problem, const Traits& t) noexcept {
  return cdiv(problem.group_out(), t.block_out) * kernel_rows(problem) *
         cdiv(pixels(problem), t.block_pixels) * problem.groups * problem.batch;
}

double microseconds(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  const bool vectors = vectors_fit(problem) && pixel_vectors_fit(problem);
  const std::int64_t count = programs(problem, t);
  if (t.stride != problem.w.kernel || problem.w.out() % t.vector != 0 || (t.aligned && !vectors) ||
      !weight_rows_fit(problem, t.block_in) || !planes_fit(problem, t.block_in, t.block_out) ||
      count > kInt32)
    return kNever;
  // Storing a column takes as long as multiplying 64 channels; fp32's products take longer.
  const double columns = product(t.block_out, problem.w.kernel);
  const double products = config.variant->math == Math::fp32 ? 1.5 : 1.0;
  const double depth = static_cast<double>(cdiv(problem.group_in(), t.block_in) * t.block_in);
  const double waves = static_cast<double>(cdiv(count, gpu.multiprocessors));
  const double work = waves * (columns + 32) * (products * depth + 64) * (t.aligned ? 1.0 : 2.0);
  if (problem.dtype() == DType::f32)
    return 5.6 + 1.1 * memory_us(problem, gpu) + clock_us(1.06e-4 * work, gpu);
  const double memory = 1.05 * memory_us(problem, gpu), math = clock_us(0.56e-4 * work, gpu);
  return 3.0 + std::max(memory, math) + 0.1 * std::min(memory, math);
}

Program program(const Config& config, const Problem& problem, const Gpu& gpu) {
  const std::int64_t count = programs(problem, traits(*config.variant));
  return one_launch(config, gpu, grid_of(count), Arguments(problem, {}));
}

}  // namespace

const Family kFamily{.reason = kBlocksReason,
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program};

}  // namespace convt::pixel_shuffle
