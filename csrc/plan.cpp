#include "convt/plan.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "arguments.hpp"
#include "text.hpp"

namespace convt {
namespace {

constexpr std::int64_t kInt32 = std::numeric_limits<std::int32_t>::max();

std::int64_t cdiv(std::int64_t a, std::int64_t b) noexcept { return (a + b - 1) / b; }
std::int64_t shifted_up(std::int64_t a, int log2) noexcept { return ((a - 1) >> log2) + 1; }

// Multiprocessors of the smallest common GPU of an architecture: what a grid should fill.
int multiprocessors(int arch) noexcept {
  switch (arch) {
    case 80:
      return 108;
    case 86:
      return 84;
    case 90:
      return 132;
    case 100:
      return 148;
    case 120:
      return 170;
    default:
      return 128;
  }
}

// Whether `variant` may run `problem` at all, its family aside.
bool matches(const Variant& variant, const Problem& problem, const Target& target) noexcept {
  return variant.family != Family::pack && variant.dtype == problem.dtype &&
         variant.layout == problem.layout &&
         (problem.dtype != DType::f32 || variant.precision == problem.precision) &&
         variant.image(target.arch, target.kind) != nullptr;
}

// 16-byte vectors of what is innermost: the packed weight's output channels, and in nhwc the
// channels of a group of input and output.
bool vectors_fit(const Problem& problem) noexcept {
  const std::int64_t lanes = problem.dtype == DType::f32 ? 4 : 8;
  if (problem.group_out() % lanes != 0) return false;
  return problem.layout == Layout::nchw || (problem.aligned && problem.group_in() % lanes == 0);
}

struct Candidate {
  const Variant* variant = nullptr;
  Box box;
  std::int64_t programs = 0;
  double cost = std::numeric_limits<double>::infinity();
};

// The box of `pixels` quotients that covers all of them with the fewest programs; among equals
// the widest, whose memory accesses are the longest.
Box best_box(const Problem& problem, const Axis& h, const Axis& w, int pixels) noexcept {
  const int log2_pixels = std::countr_zero(static_cast<unsigned>(pixels));
  Box best;
  std::int64_t fewest = std::numeric_limits<std::int64_t>::max();
  for (int log2_w = log2_pixels; log2_w >= 0; --log2_w)
    for (int log2_h = log2_pixels - log2_w; log2_h >= 0; --log2_h) {
      const std::int64_t count = shifted_up(w.quotients, log2_w) * shifted_up(h.quotients, log2_h) *
                                 shifted_up(problem.batch, log2_pixels - log2_w - log2_h);
      if (count < fewest) fewest = count, best = {log2_h, log2_w};
    }
  return best;
}

// Whether 32 bits hold every offset of an access that happens, from a program's first image on.
// Inputs are addressed from the first tap of a phase, up to a kernel's reach beyond the image.
bool narrow_enough(const Problem& problem, const Variant& variant, const Box& box) noexcept {
  const Pair out = problem.out();
  const auto product = [](auto... factors) { return (static_cast<double>(factors) * ...); };
  const std::int64_t images = std::int64_t{variant.block_pixels} >> (box.log2_h + box.log2_w);
  const double reach_h = product(problem.kernel.h, problem.geometry.dilation.h);
  const double reach_w = product(problem.kernel.w, problem.geometry.dilation.w);
  const double x_image =
      product(problem.in_channels, problem.in.h + reach_h, problem.in.w + reach_w);
  const double y_image = product(problem.out_channels, out.h, out.w);
  return product(images, std::max(x_image, y_image)) <= kInt32;
}

// Rows of the packed weight are addressed in 32 bits in every variant.
bool weight_fits(const Problem& problem, const Variant& variant) noexcept {
  return problem.kernel.h * problem.kernel.w * problem.group_out() <= kInt32 / variant.block_in;
}

// Time on `sms` multiprocessors in arbitrary units. A program's time per input channel grows with
// the operands it loads; wide and unaligned loads take more instructions.
Candidate phase_candidate(const Variant& variant, const Problem& problem, const Axis& h,
                          const Axis& w, int sms) noexcept {
  const Box box = best_box(problem, h, w, variant.block_pixels);
  if ((variant.aligned && !vectors_fit(problem)) ||
      (!variant.wide && !narrow_enough(problem, variant, box)) || !weight_fits(problem, variant))
    return {};
  const Geometry& g = problem.geometry;
  const std::int64_t images = std::int64_t{variant.block_pixels} >> (box.log2_h + box.log2_w);
  const std::int64_t programs = shifted_up(w.quotients, box.log2_w) *
                                shifted_up(h.quotients, box.log2_h) * cdiv(problem.batch, images) *
                                cdiv(problem.group_out(), variant.block_out) * g.groups *
                                g.stride.h * g.stride.w;
  if (programs > kInt32) return {};
  const std::int64_t depth = cdiv(problem.group_in(), variant.block_in) * variant.block_in;
  const double loads = static_cast<double>(variant.block_pixels + variant.block_out);
  const double slowdown = (variant.aligned ? 1.0 : 2.0) * (variant.wide ? 2.0 : 1.0);
  const double waves = static_cast<double>(cdiv(programs, sms));
  return {&variant, box, programs, waves * loads * static_cast<double>(depth) * slowdown};
}

}  // namespace

const char* unsupported(Family family, const Problem& problem) noexcept {
  const Geometry& g = problem.geometry;
  const Pair out = problem.out();
  if (problem.dtype == DType::other) return "only fp32, fp16 and bf16 have kernels";
  switch (family) {
    case Family::phase:
      // The kernel multiplies residues and inverses, both under the stride, in 32 bits.
      if (std::max(g.stride.h, g.stride.w) > 32768) return "a stride is over 32768";
      for (const std::int64_t value :
           {problem.batch, problem.in_channels, problem.out_channels, problem.in.h, problem.in.w,
            problem.kernel.h * problem.kernel.w, g.padding.h, g.padding.w, g.dilation.h,
            g.dilation.w, out.h + 2 * g.padding.h, out.w + 2 * g.padding.w,
            g.dilation.h * problem.kernel.h, g.dilation.w * problem.kernel.w})
        if (value > kInt32 / 2) return "a size is over 2^30";
      return nullptr;
    case Family::pack:
      return "it only copies weights";
  }
  return "unknown family";
}

Plan plan(const Problem& problem, const Target& target) {
  Plan plan;
  plan.problem = problem;
  plan.target = target;
  if (target.arch == 0) return plan.reason = "no CUDA device that this build has kernels for", plan;
  if (const char* why = unsupported(Family::phase, problem)) return plan.reason = why, plan;
  if (problem.output_numel() == 0) return plan.reason = "the output is empty", plan;

  const Geometry& g = problem.geometry;
  const Pair out = problem.out();
  const Axis h = phases(out.h, g.stride.h, g.dilation.h);
  const Axis w = phases(out.w, g.stride.w, g.dilation.w);
  const int sms = multiprocessors(target.arch);
  Candidate best;
  for (const Variant& variant : variants()) {
    if (!matches(variant, problem, target)) continue;
    const Candidate candidate = phase_candidate(variant, problem, h, w, sms);
    if (candidate.cost < best.cost) best = candidate;
  }
  if (!best.variant)
    return plan.reason = "it is too large for one grid or for 32-bit weight rows", plan;

  plan.variant = best.variant;
  plan.reason = "general kernel, the tile of least modelled time";
  plan.grid = {static_cast<std::uint32_t>(best.programs), 1, 1};
  plan.arguments = arguments(problem, best.box);
  return plan;
}

std::string Plan::str() const {
  if (!variant) return text("ATen: ", reason, "\n  ", problem.str());
  const Image& image = *variant->image(target.arch, target.kind);
  const bool jit = target.kind == ImageKind::ptx;
  return text(variant->name, " on sm_", target.arch,
              jit ? " PTX, which the driver compiles at first use" : "", ", grid ", grid.x, " x ",
              grid.y, " x ", grid.z, ", ", 32 * variant->warps, " threads, ", image.shared_bytes,
              " bytes of shared memory, ", image.registers, " registers: ", reason, "\n  ",
              problem.str());
}

}  // namespace convt
