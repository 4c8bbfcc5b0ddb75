#include "convt/plan.hpp"

#include <algorithm>
#include <array>

#include "arguments.hpp"
#include "families.hpp"
#include "text.hpp"

namespace convt {
namespace {

// The first that has a variant for a problem answers it.
constexpr std::array kFamilies{&kPixelShuffleShallow, &kPixelShuffle, &kSingleTapNchw,
                               &kSingleTapNhwc, &kPhase};

// Multiprocessors of the smallest common GPU of an architecture, which a grid should fill, and what
// each has.
struct Multiprocessors {
  int count, shared_kib, threads;
};

Multiprocessors multiprocessors(int arch) noexcept {
  switch (arch) {
    case 80:
      return {108, 164, 2048};
    case 86:
      return {84, 100, 1536};
    case 90:
      return {132, 228, 2048};
    case 100:
      return {148, 228, 2048};
    case 120:
      return {170, 100, 1536};
    default:
      return {128, 100, 1536};
  }
}

Room room(const Variant& variant, const Image& image) noexcept {
  const auto [sms, shared_kib, threads] = multiprocessors(image.arch);
  const std::uint32_t registers = (32 * image.registers + 255) / 256 * 256 * variant.warps;
  const std::uint32_t resident =
      std::min({65536 / registers, shared_kib * 1024 / (image.shared_bytes + 1024),
                threads / (32 * variant.warps)});
  return {sms, std::max<std::int64_t>(resident, 1) * sms};
}

// Whether `variant` multiplies as `problem` needs, or more accurately.
bool matches(const Variant& variant, const Problem& problem) noexcept {
  const Precision needed = problem.needed_precision();
  const bool accurate = variant.precision == needed ||
                        (variant.family != Family::phase && variant.precision == Precision::fp32 &&
                         needed == Precision::tf32);
  return variant.dtype == problem.dtype && variant.layout == problem.layout &&
         (problem.dtype != DType::f32 || accurate);
}

}  // namespace

bool weight_fits(const Variant& variant, const Problem& problem) noexcept {
  return (variant.deep || problem.group_in() <= variant.block_in) &&
         product(variant.block_in, problem.kernel.h, problem.kernel.w, problem.group_out()) <=
             kInt32;
}

bool vectors_fit(const Problem& problem) noexcept {
  if (problem.group_out() % lanes(problem) != 0) return false;
  return problem.layout == Layout::nchw ||
         (problem.aligned && problem.group_in() % lanes(problem) == 0);
}

const char* too_large(const Problem& problem) noexcept {
  const Geometry& g = problem.geometry;
  const Pair out = problem.out();
  for (const std::int64_t value :
       {problem.batch, problem.in_channels, problem.out_channels, problem.in.h, problem.in.w,
        problem.kernel.h * problem.kernel.w, g.padding.h, g.padding.w, g.dilation.h, g.dilation.w,
        out.h + 2 * g.padding.h, out.w + 2 * g.padding.w, g.dilation.h * problem.kernel.h,
        g.dilation.w * problem.kernel.w})
    if (value > kInt32 / 2) return "a size is over 2^30";
  return nullptr;
}

const char* unsupported(Family family, const Problem& problem) noexcept {
  if (problem.dtype == DType::other) return "only fp32, fp16 and bf16 have kernels";
  for (const FamilyRules* rules : kFamilies)
    if (rules->family == family) return rules->unsupported(problem);
  return "it only copies weights";
}

Plan plan(const Problem& problem, const Target& target) {
  Plan plan;
  plan.problem = problem;
  plan.target = target;
  if (target.arch == 0) return plan.reason = "no CUDA device that this build has kernels for", plan;
  if (problem.output_numel() == 0) return plan.reason = "the output is empty", plan;

  for (const FamilyRules* rules : kFamilies) {
    // The last family is the general one: its reason stands.
    if (const char* why = unsupported(rules->family, problem)) {
      plan.reason = why;
      continue;
    }
    plan.reason = "it is too large for one grid or for 32-bit weight rows";
    Candidate best;
    for (const Variant& variant : variants()) {
      if (variant.family != rules->family || !matches(variant, problem)) continue;
      const Image* image = variant.image(target.arch, target.kind);
      if (!image) continue;
      const Room space = room(variant, *image);
      const Candidate candidate = rules->candidate(variant, problem, space);
      if (candidate.cost < best.cost) best = candidate, plan.resident = space.resident;
    }
    if (!best.variant) continue;
    plan.variant = best.variant;
    plan.reason = rules->reason;
    plan.grid = {static_cast<std::uint32_t>(best.programs), static_cast<std::uint32_t>(best.grid_y),
                 static_cast<std::uint32_t>(best.grid_z)};
    plan.arguments = arguments(problem);
    for (const Setting& setting : best.settings)
      if (setting.param != Param::count)
        plan.arguments[static_cast<std::size_t>(setting.param)] = setting.value;
    return plan;
  }
  return plan;
}

std::string Plan::str() const {
  if (!variant) return text("ATen: ", reason, "\n  ", problem.str());
  const Image& image = *variant->image(target.arch, target.kind);
  const bool jit = target.kind == ImageKind::ptx;
  const bool exceeds = problem.dtype == DType::f32 && variant->precision != problem.precision;
  return text(variant->name, " on sm_", target.arch,
              jit ? " PTX, which the driver compiles at first use" : "", ", grid ", grid.x, " x ",
              grid.y, " x ", grid.z, ", ", 32 * variant->warps, " threads, ", image.shared_bytes,
              " bytes of shared memory, ", image.registers, " registers: ", reason,
              exceeds ? "; its products are fp32's, more accurate than asked for" : "", "\n  ",
              problem.str());
}

}  // namespace convt
