// How a weight gets into the memory order that kernels read: a copy by a kernel of our own, because
// torch's takes 13 to 25 ms to load in a fresh process.
#include "convt/plan.hpp"
#include "families.hpp"

namespace convt {
namespace {

const Variant* find_variant(DType dtype, const Target& target) noexcept {
  for (const Variant& variant : variants())
    if (variant.family == Family::pack && variant.dtype == dtype &&
        variant.image(target.arch, target.kind))
      return &variant;
  return nullptr;
}

}  // namespace

Plan plan_pack(const TensorDesc& weight, const Target& target) {
  Plan plan;
  plan.target = target;
  plan.reason = "only 4-dimensional fp32, fp16 and bf16 weights have a kernel that packs them";
  if (weight.ndim != 4) return plan;
  const std::int64_t* size = weight.sizes;
  plan.problem.in_channels = size[0];
  plan.problem.out_channels = size[1];
  plan.problem.in = {1, 1};
  plan.problem.kernel = {size[2], size[3]};
  plan.problem.dtype = weight.dtype;
  const Variant* variant = find_variant(weight.dtype, target);
  if (!variant) return plan;

  plan.reason = "its size does not fit one grid";
  for (int dim = 0; dim < 4; ++dim)
    if (size[dim] == 0 || size[dim] > kInt32 / 2) return plan;
  // Of at most kInt32 / block_pixels programs, so that taps are counted in 32 bits as well.
  const std::int64_t tap_tiles = cdiv(size[2] * size[3], variant->block_pixels);
  const double programs = static_cast<double>(size[0]) * static_cast<double>(tap_tiles) *
                          static_cast<double>(cdiv(size[1], variant->block_out));
  if (programs > kInt32 / variant->block_pixels) return plan;

  plan.reason = "packs a weight";
  plan.variant = variant;
  plan.grid = {static_cast<std::uint32_t>(programs), 1, 1};
  const auto set = [&](Param param, std::int64_t value) {
    plan.arguments[static_cast<std::size_t>(param)] = value;
  };
  set(Param::group_out, size[1]);
  set(Param::kernel_h, size[2]);
  set(Param::kernel_w, size[3]);
  set(Param::x_n, weight.strides[0]);
  set(Param::x_c, weight.strides[1]);
  set(Param::x_h, weight.strides[2]);
  set(Param::x_w, weight.strides[3]);
  return plan;
}

}  // namespace convt
