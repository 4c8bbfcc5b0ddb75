// kernel == stride with few input channels. Programs stay, as many as run at once: each keeps the
// weights of some tiles and takes one piece of input after another; see
// aot/kernels/pixel_shuffle_shallow.py.
#include "families/pixel_shuffle_shallow.hpp"

#include "families/blocks.hpp"

namespace convt::pixel_shuffle_shallow {
namespace {

const char* unsupported(const Problem& problem) noexcept {
  return not_blocks(problem, Layout::nchw);
}

struct Tiling {
  std::int64_t items = 0;   // pieces of the input
  std::int64_t tiles = 0;   // of a program
  std::int64_t parts = 0;   // programs that share a piece
  std::int64_t rounds = 0;  // pieces of a program
};

Tiling tiling(const Config& config, const Problem& problem, const Gpu& gpu) noexcept {
  const Traits t = traits(*config.variant);
  const Image& image = *config.variant->image(gpu.image.arch, gpu.image.kind);
  const std::int64_t all_tiles = cdiv(problem.group_out(), t.block_out) * kernel_rows(problem);
  const std::int64_t tiles = cdiv(all_tiles, cdiv(all_tiles, t.held));
  const std::int64_t parts = problem.groups * cdiv(all_tiles, tiles);
  const std::int64_t items = problem.batch * cdiv(pixels(problem), t.block_pixels);
  const std::int64_t resident = gpu.resident(image, config.variant->warps);
  return {.items = items,
          .tiles = tiles,
          .parts = parts,
          .rounds = cdiv(items, std::max<std::int64_t>(resident / parts, 1))};
}

double microseconds(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  if (t.stride != problem.w.kernel || problem.w.out() % t.vector != 0 ||
      (t.aligned && !pixel_vectors_fit(problem)) || problem.group_in() > t.block_in ||
      !weight_rows_fit(problem, t.block_in) || !planes_fit(problem, t.block_in, t.block_out))
    return kNever;
  const Tiling tiles = tiling(config, problem, gpu);
  if (tiles.parts > kGridLayers || tiles.items > kInt32 / 2) return kNever;
  // A program of one round uses its weights once: copying 16-bit ones to shared memory costs more
  // than it saves.
  if (problem.dtype() != DType::f32 && tiles.rounds == 1) return kNever;
  // Splitting fp32 numbers takes time beside the memory's: so much for each byte of a
  // multiprocessor.
  const double bytes = static_cast<double>(problem.min_bytes()) / gpu.multiprocessors;
  const double pieces = problem.dtype() == DType::f32 ? clock_us(1.1e-5 * bytes, gpu) : 0.0;
  return 3.2 + (1.05 * memory_us(problem, gpu) + pieces) * (t.aligned ? 1.0 : 1.2);
}

Program program(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Tiling t = tiling(config, problem, gpu);
  const Arguments arguments(problem, {.items = t.items, .tiles = t.tiles});
  return one_launch(config, gpu, grid_of(cdiv(t.items, t.rounds), t.parts), arguments);
}

}  // namespace

const Family kFamily{.reason = kBlocksReason,
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program};

}  // namespace convt::pixel_shuffle_shallow
