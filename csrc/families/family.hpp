// The rules of a kernel family, by which the planner uses it.
//
// How to write a family NAME, in three files and nothing else:
//   1. aot/kernels/NAME.py    @triton.jit or @gluon.jit `def NAME(x, weight, bias, y, has_bias,
//   ...)`.
//      A parameter named as in words.hpp gets its value from the problem; all others are the
//      family's own. Upper-case ones are compile-time constants.
//   2. aot/families/NAME.py   `def variants() -> Iterator[Variant]`: what is compiled, on which
//      architectures, with which constants, traits (integers for the rules below) and weight order.
//   3. csrc/families/NAME.cpp includes "families/NAME.hpp", which aot/embed.py generates:
//        NAME::Traits t = NAME::traits(variant)       its constants and traits, in lower case
//        NAME::Arguments a(problem, {.own = 1, ...})  every parameter; fields may be overwritten
//      and defines `const Family NAME::kFamily{...}` of the functions below. A parameter that is
//      renamed in the kernel, or left out here, fails to compile.
// All functions are pure: no CUDA call, no environment, no state.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "convt/config.hpp"
#include "convt/gpu.hpp"
#include "convt/problem.hpp"
#include "convt/step.hpp"

namespace convt {

inline constexpr double kNever = std::numeric_limits<double>::infinity();
inline constexpr double kLaunchUs = 2.0;  // what a step costs beside its work
inline constexpr std::int64_t kInt32 = std::numeric_limits<std::int32_t>::max();
inline constexpr std::int64_t kGridLayers = 65535;  // what a grid may have in y and z

// Times of families are fitted on an H200 (benchmarks/results/zoo_h200.json). Its clock in GHz:
// instructions of a multiprocessor take as much longer as another GPU's is lower.
inline constexpr double kFittedClock = 1.98;
inline double clock_us(double us, const Gpu& gpu) noexcept { return us * kFittedClock / gpu.clock; }

inline double memory_us(const Problem& problem, const Gpu& gpu) noexcept {
  return gpu.memory_us(static_cast<double>(problem.min_bytes()));
}

struct Family {
  const char* reason;  // why it serves a problem, for explain()
  // Null if some variant might serve the problem; else why none does, as a literal.
  const char* (*unsupported)(const Problem& problem) noexcept;
  // Microseconds of a config of one of its variants, whose math and layout suit the problem: never
  // under gpu.floor_us(problem), kLaunchUs a step; kNever where it cannot serve it. Packing of the
  // weight is not its business.
  double (*microseconds)(const Config& config, const Problem& problem, const Gpu& gpu);
  // Its launches; called only where `microseconds` is not kNever.
  Program (*program)(const Config& config, const Problem& problem, const Gpu& gpu);
  // Names of its knobs, and which settings of them to weigh (none: only zeros).
  std::array<std::string_view, kKnobs> knobs{};
  std::vector<Config> (*settings)(const Variant& variant, const Problem& problem,
                                  const Gpu& gpu) = nullptr;
};

// The rules of a variant's family; null for kernels that no family launches of their own.
const Family* family_of(const Variant& variant) noexcept;

constexpr std::int64_t cdiv(std::int64_t a, std::int64_t b) noexcept { return (a + b - 1) / b; }

// A product of sizes, without overflow.
constexpr double product(auto... factors) noexcept { return (static_cast<double>(factors) * ...); }

// Elements of a 16-byte vector.
inline std::int64_t lanes(const Problem& problem) noexcept { return 16 / problem.element_bytes(); }

// 16-byte vectors of what is innermost: the packed weight's output channels, and in nhwc the
// channels of a group of input and output.
bool vectors_fit(const Problem& problem) noexcept;

// Whether 32 bits address so many input channels' rows of the packed weight.
inline bool weight_rows_fit(const Problem& problem, std::int64_t rows) noexcept {
  return product(rows, problem.taps(), problem.group_out()) <= kInt32;
}

// Null if every size fits a kernel's 32-bit integers.
const char* too_large(const Problem& problem) noexcept;

// Null if the problem lies in this memory layout; else why a kernel for it does not serve.
inline const char* other_layout(const Problem& problem, Layout layout) noexcept {
  return problem.layout == layout ? nullptr : "it has another memory layout";
}

// Null if the problem has no depth; else why a kernel for two axes does not serve it.
const char* has_depth(const Problem& problem) noexcept;

// Whether the outputs of an axis are blocks of one input each: kernel == stride, no padding.
inline bool is_blocks(const Axis& axis) noexcept {
  return axis.kernel == axis.stride && axis.padding == 0 && axis.out() == axis.in * axis.stride;
}

// The first variant of a kernel with an image for the GPU; null if there is none. For kernels that
// prepare or finish the work of a family's own.
const Variant* find_variant(std::string_view symbol, Math math, Layout layout,
                            const Gpu& gpu) noexcept;

// Lays out arguments as C lays out a struct, which is how kernels read parameters. Arguments come
// by name, in the kernel's order; those that are constants of the variant are left out.
class ArgumentWriter {
 public:
  ArgumentWriter(const Variant& variant, Step& step) : variant_(variant), step_(step) {}
  void operator()(std::string_view name, const Buffer& buffer);
  void operator()(std::string_view name, std::int64_t value);
  void operator()(std::string_view name, const TensorMap& map);
  // Triton's two scratch pointers, which no kernel that ships uses.
  void finish();

 private:
  const Parameter* take(std::string_view name, bool pointer, bool map);
  std::uint32_t append(const void* value, std::size_t size, std::size_t alignment);
  const Variant& variant_;
  Step& step_;
  std::size_t position_ = 0;
};

// A launch with generated arguments: `arguments.each(f)` calls f(name, value) for each parameter.
template <class Arguments>
Step step(const Variant& variant, const Gpu& gpu, const Grid& grid, const Arguments& arguments) {
  Step step{.variant = &variant,
            .image = gpu.image,
            .grid = grid,
            .arguments = {},
            .addresses = {},
            .maps = {}};
  ArgumentWriter writer(variant, step);
  arguments.each(writer);
  writer.finish();
  return step;
}

// The counts have to fit a grid: a family's time is kNever where they do not.
inline Grid grid_of(std::int64_t x, std::int64_t y = 1, std::int64_t z = 1) noexcept {
  return {.x = static_cast<std::uint32_t>(x),
          .y = static_cast<std::uint32_t>(y),
          .z = static_cast<std::uint32_t>(z)};
}

// A program of one launch, without a workspace.
template <class Arguments>
Program one_launch(const Config& config, const Gpu& gpu, const Grid& grid,
                   const Arguments& arguments) {
  return {.steps = {step(*config.variant, gpu, grid, arguments)}, .workspace_bytes = 0};
}

}  // namespace convt
