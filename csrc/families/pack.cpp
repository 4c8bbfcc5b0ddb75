// A kernel of our own copies a weight into the memory order that kernels read: torch's copy kernel
// takes 13 to 25 ms to load in a fresh process.
#include "families/pack.hpp"

#include "families/packing.hpp"

namespace convt {

namespace pack {
namespace {

const char* unsupported(const Problem&) noexcept { return "it only copies weights"; }
double microseconds(const Config&, const Problem&, const Gpu&) { return kNever; }
Program program(const Config&, const Problem&, const Gpu&) { return {}; }

}  // namespace

const Family kFamily{.reason = "packs a weight",
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program};

}  // namespace pack

std::optional<Step> packing(const Problem& problem, const Gpu& gpu, const Buffer& packed) {
  const Math math = problem.dtype() == DType::f32 ? Math::fp32 : problem.math;
  const Variant* variant = find_variant("pack", math, Layout::nhwc, gpu);
  if (!variant || problem.weight_numel() == 0) return std::nullopt;
  const pack::Traits t = pack::traits(*variant);
  const std::int64_t tap_tiles = cdiv(problem.taps(), t.block_taps);
  // At most kInt32 / block_taps programs: then their taps, too, are counted in 32 bits.
  const double programs =
      product(problem.in_channels, tap_tiles, cdiv(problem.group_out(), t.block_out));
  if (programs > kInt32 / t.block_taps || problem.group_out() > kInt32 / 2) return std::nullopt;
  return step(*variant, gpu, grid_of(static_cast<std::int64_t>(programs)),
              pack::Arguments(problem, {.packed = packed}));
}

double packing_us(const Problem& problem, const Gpu& gpu) noexcept {
  return kLaunchUs +
         gpu.memory_us(2.0 * static_cast<double>(problem.weight_numel() * problem.element_bytes()));
}

}  // namespace convt
