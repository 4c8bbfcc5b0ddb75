#include "dispatch/build.hpp"

#include "core/text.hpp"

namespace convt {
namespace {

// Lets every step read the packed weight at `packed`.
void read_packed(std::vector<Step>& steps, const Buffer& packed) {
  const auto redirect = [&](Buffer& buffer) {
    if (buffer.role == Role::weight)
      buffer = {.role = packed.role, .offset = packed.offset + buffer.offset};
  };
  for (Step& step : steps) {
    for (AddressSlot& slot : step.addresses) redirect(slot.buffer);
    for (MapSlot& slot : step.maps) redirect(slot.map.buffer);
  }
}

constexpr std::int64_t kAlignment = 256;

}  // namespace

Plan build(const Problem& problem, const Gpu& gpu, const Candidate& candidate) {
  Plan plan{.problem = problem,
            .gpu = gpu,
            .config = candidate.config,
            .steps = {},
            .microseconds = candidate.microseconds,
            .reason = {},
            .best = {}};
  if (plan.config.is_aten()) return plan;
  const Variant& variant = *plan.config.variant;
  if (const Family* family = family_of(variant)) {
    Program program = family->program(plan.config, problem, gpu);
    plan.steps = std::move(program.steps);
    plan.workspace_bytes = program.workspace_bytes;
    plan.reason = family->reason;
  }
  if (needs_packing(variant, problem)) {
    const Buffer packed{.role = Role::workspace,
                        .offset = cdiv(plan.workspace_bytes, kAlignment) * kAlignment};
    read_packed(plan.steps, packed);
    plan.steps.insert(plan.steps.begin(), packing(problem, gpu, packed).value());
    plan.workspace_bytes = packed.offset + problem.weight_numel() * problem.element_bytes();
  }
  return plan;
}

Plan plan_pack(const TensorDesc& weight, const Gpu& gpu) {
  Plan plan;
  plan.gpu = gpu;
  plan.reason =
      "only fp32, fp16 and bf16 weights of 3 to 5 dimensions have a kernel that packs them";
  if (weight.ndim < 3 || weight.ndim > 5 || weight.dtype == DType::other || gpu.image.arch == 0)
    return plan;
  plan.problem.dims = static_cast<int>(weight.ndim) - 2;
  plan.problem.in_channels = weight.sizes[0];
  plan.problem.out_channels = weight.sizes[1];
  plan.problem.math = math_of(weight.dtype, Precision::fp32);
  const std::array<Axis*, 3> axes{&plan.problem.d, &plan.problem.h, &plan.problem.w};
  for (std::int64_t dim = 2; dim < weight.ndim; ++dim)
    axes[static_cast<std::size_t>(dim + 3 - weight.ndim)]->kernel = weight.sizes[dim];
  plan.problem = plan.problem.with_weight(weight);
  plan.reason = "its size does not fit one grid";
  const std::optional<Step> step = packing(plan.problem, gpu, {.role = Role::output});
  if (!step) return plan;
  plan.reason = "packs a weight";
  plan.config = {.variant = step->variant};
  plan.steps = {*step};
  return plan;
}

const Step& Plan::main() const noexcept {
  for (const Step& step : steps)
    if (step.variant == config.variant) return step;
  return steps.back();
}

std::string Plan::str() const {
  std::string out;
  if (!served()) {
    out = text("ATen: ", reason);
  } else {
    const Step& step = main();
    const Variant& variant = *step.variant;
    const Image& image = *variant.image(step.image.arch, step.image.kind);
    const Grid& grid = step.grid;
    const bool jit = step.image.kind == ImageKind::ptx;
    const bool exceeds = problem.dtype() == DType::f32 && variant.math != problem.math;
    out = text(config.str(), " on sm_", step.image.arch,
               jit ? " PTX, which the driver compiles at first use" : "", ", grid ", grid.x, " x ",
               grid.y, " x ", grid.z, ", ", 32 * variant.warps, " threads, ", image.shared_bytes,
               " bytes of shared memory, ", image.registers, " registers: ", reason,
               exceeds ? text("; its products are ", name(variant.math),
                              "'s, more accurate than asked for")
                       : std::string());
    if (steps.size() > 1) {
      append(out, text("\n  ", steps.size(), " steps:"));
      for (const Step& each : steps) append(out, text(" ", each.variant->name));
      append(out, text("; ", workspace_bytes, " bytes of workspace"));
    }
  }
  append(out, text("\n  ", problem.str()));
  if (!best.empty()) {
    append(out, text("\n  modelled for ", gpu.str(), ":"));
    for (const Candidate& candidate : best)
      append(out, text(&candidate == best.data() ? " " : ", ", candidate.config.str(), " ",
                       tenths(candidate.microseconds), " us"));
  }
  return out;
}

}  // namespace convt
