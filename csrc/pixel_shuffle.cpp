// The family for kernel == stride without padding; see aot/kernels/pixel_shuffle.py.
#include "families.hpp"

namespace convt {
namespace {

// Whether the outputs of an axis are blocks of one input's each.
bool is_blocks(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
               std::int64_t padding) noexcept {
  return kernel == stride && padding == 0 && out == in * stride;
}

const char* unsupported(const Problem& problem) noexcept {
  const Geometry& g = problem.geometry;
  const Pair in = problem.in, out = problem.out(), kernel = problem.kernel;
  if (problem.layout != Layout::nchw) return "it has another memory layout";
  if (!is_blocks(in.h, out.h, kernel.h, g.stride.h, g.padding.h) ||
      !is_blocks(in.w, out.w, kernel.w, g.stride.w, g.padding.w))
    return "outputs are not blocks of one input each";
  return too_large(problem);
}

Candidate candidate(const Variant& variant, const Problem& problem, int sms) noexcept {
  const Pair in = problem.in, out = problem.out(), kernel = problem.kernel;
  const std::int64_t lanes = problem.dtype == DType::f32 ? 4 : 8;
  const bool aligned = vectors_fit(problem) && problem.aligned && in.h * in.w % lanes == 0;
  if (variant.block_taps != kernel.w || out.w % variant.vector != 0 ||
      (variant.aligned && !aligned) || (!variant.deep && problem.group_in() > variant.block_in) ||
      // Offsets in a program are 32-bit: block_in input channels, block_out output channels.
      product(variant.block_in + 1, in.h, in.w) > kInt32 ||
      product(variant.block_out + 1, out.h, out.w) > kInt32 ||
      product(variant.block_in, kernel.h, kernel.w, problem.group_out()) > kInt32)
    return {};
  const std::int64_t programs = cdiv(problem.group_out(), variant.block_out) * kernel.h *
                                cdiv(in.h * in.w, variant.block_pixels) * problem.geometry.groups *
                                problem.batch;
  if (programs > kInt32) return {};
  // Storing a column takes as long as multiplying 64 channels; wide tiles multiply a bit faster.
  const double columns = product(variant.block_out, kernel.w);
  const double products = variant.deep && variant.precision == Precision::fp32 ? 1.5 : 1.0;
  const double depth =
      static_cast<double>(cdiv(problem.group_in(), variant.block_in) * variant.block_in);
  const double waves = static_cast<double>(cdiv(programs, sms));
  return {&variant,
          programs,
          waves * (columns + 32) * (products * depth + 64) * (variant.aligned ? 1.0 : 2.0),
          {}};
}

}  // namespace

const FamilyRules kPixelShuffle{
    Family::pixel_shuffle, "kernel == stride: one matrix product a kernel row, stored as it is",
    &unsupported, &candidate};

}  // namespace convt
