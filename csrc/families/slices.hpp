// Input channels are cut into slices. Each slice is summed by programs of its own, and a second
// launch adds the slices.
#pragma once

#include <cmath>

#include "families/family.hpp"
#include "families/point_reduce.hpp"

namespace convt {

inline constexpr std::int64_t kMostSlices = 64;

// Microseconds that `programs` take if each of their warps needs `cycles` of a multiprocessor.
inline double busy_us(const Variant& variant, const Gpu& gpu, double programs, double cycles) {
  const Image& image = *variant.image(gpu.image.arch, gpu.image.kind);
  const auto multiprocessors = static_cast<double>(gpu.multiprocessors);
  const double resident = static_cast<double>(gpu.resident(image, variant.warps));
  const double waves = std::floor(programs / resident);
  const double rest = std::ceil((programs - waves * resident) / multiprocessors);
  return (waves * resident / multiprocessors + rest) * variant.warps * cycles / gpu.clock * 1e-3;
}

// Microseconds of writing the slices and adding them. Half of the traffic stays in L2.
inline double slices_us(const Problem& p, const Gpu& gpu, std::int64_t slices) {
  if (slices == 1) return 0;
  return kLaunchUs + gpu.memory_us(product(slices, p.output_numel(), 4));
}

// Appends the launch that adds `slices` fp32 copies of the output, which lie one after another at
// the start of the workspace.
inline void add_slices(Program& program, const Variant& variant, const Problem& p, const Gpu& gpu,
                       std::int64_t slices) {
  const Math math = variant.math == Math::tf32 ? Math::fp32 : variant.math;
  const Variant& reduce = *find_variant("point_reduce", math, p.layout, gpu);
  const std::int64_t elements = p.output_numel();
  const point_reduce::Arguments arguments(
      p, {.partial = Buffer{.role = Role::workspace}, .elements = elements, .slices = slices});
  const auto programs = cdiv(elements, point_reduce::traits(reduce).block);
  program.steps.push_back(step(reduce, gpu, grid_of(programs), arguments));
  program.workspace_bytes = slices * elements * 4;
}

}  // namespace convt
