// The families for kernel == stride without padding; see aot/kernels/pixel_shuffle*.py.
#include <algorithm>

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

// Whether the shapes are a variant's, and 16-byte vectors of pixels if it needs them.
bool fits(const Variant& variant, const Problem& problem, bool aligned) noexcept {
  const Pair in = problem.in, out = problem.out();
  return variant.block_taps == problem.kernel.w && out.w % variant.vector == 0 &&
         (aligned || !variant.aligned) && weight_fits(variant, problem) &&
         // Offsets in a program are 32-bit: block_in input channels, block_out output channels.
         product(variant.block_in + 1, in.h, in.w) <= kInt32 &&
         product(variant.block_out + 1, out.h, out.w) <= kInt32;
}

bool pixels_fit(const Problem& problem) noexcept {
  return problem.aligned && problem.in.h * problem.in.w % lanes(problem) == 0;
}

Candidate candidate(const Variant& variant, const Problem& problem, const Room& room) noexcept {
  const Pair in = problem.in, kernel = problem.kernel;
  if (!fits(variant, problem, vectors_fit(problem) && pixels_fit(problem))) return {};
  const std::int64_t programs = cdiv(problem.group_out(), variant.block_out) * kernel.h *
                                cdiv(in.h * in.w, variant.block_pixels) * problem.geometry.groups *
                                problem.batch;
  if (programs > kInt32) return {};
  // Storing a column takes as long as multiplying 64 channels; fp32's products take longer.
  const double columns = product(variant.block_out, kernel.w);
  const double products = variant.precision == Precision::fp32 ? 1.5 : 1.0;
  const double depth =
      static_cast<double>(cdiv(problem.group_in(), variant.block_in) * variant.block_in);
  const double waves = static_cast<double>(cdiv(programs, room.sms));
  return {&variant,
          programs,
          waves * (columns + 32) * (products * depth + 64) * (variant.aligned ? 1.0 : 2.0),
          {}};
}

// Programs stay, as many as run at once: each keeps the weights of some tiles and takes one piece
// of input after another.
Candidate candidate_shallow(const Variant& variant, const Problem& problem,
                            const Room& room) noexcept {
  if (!fits(variant, problem, pixels_fit(problem))) return {};
  const std::int64_t all_tiles = cdiv(problem.group_out(), variant.block_out) * problem.kernel.h;
  const std::int64_t tiles = cdiv(all_tiles, cdiv(all_tiles, variant.held));
  const std::int64_t y = problem.geometry.groups * cdiv(all_tiles, tiles);
  const std::int64_t items =
      problem.batch * cdiv(problem.in.h * problem.in.w, variant.block_pixels);
  if (y > kGridLayers || items > kInt32 / 2) return {};
  const std::int64_t rounds = cdiv(items, std::max<std::int64_t>(room.resident / y, 1));
  // 16-bit weights do not earn their way through shared memory in one round.
  if (problem.dtype != DType::f32 && rounds == 1) return {};
  return {&variant,
          cdiv(items, rounds),
          variant.aligned ? 1.0 : 2.0,
          {{{Param::items, items}, {Param::tiles, tiles}}},
          y};
}

constexpr const char* kReason =
    "kernel == stride: one matrix product a kernel row, stored as it is";

}  // namespace

const FamilyRules kPixelShuffle{Family::pixel_shuffle, kReason, &unsupported, &candidate};
const FamilyRules kPixelShuffleShallow{Family::pixel_shuffle_shallow, kReason, &unsupported,
                                       &candidate_shallow};

}  // namespace convt
