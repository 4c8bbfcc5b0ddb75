// The families for at most one tap per output and axis; see aot/kernels/single_tap_*.py.
#include <algorithm>
#include <numeric>

#include "arguments.hpp"
#include "families.hpp"

namespace convt {
namespace {

const char* unsupported(const Problem& problem, Layout layout) noexcept {
  const Geometry& g = problem.geometry;
  if (problem.layout != layout) return "it has another memory layout";
  if (std::max(g.stride.h, g.stride.w) > 16) return "a stride is over 16";
  if (problem.kernel.h * std::gcd(g.stride.h, g.dilation.h) > g.stride.h ||
      problem.kernel.w * std::gcd(g.stride.w, g.dilation.w) > g.stride.w)
    return "an output has several taps";
  return too_large(problem);
}

const char* unsupported_nchw(const Problem& problem) noexcept {
  return unsupported(problem, Layout::nchw);
}

const char* unsupported_nhwc(const Problem& problem) noexcept {
  return unsupported(problem, Layout::nhwc);
}

SingleTaps across(const Problem& problem) noexcept {
  const Geometry& g = problem.geometry;
  return single_taps(problem.out().w, problem.kernel.w, g.stride.w, g.padding.w, g.dilation.w);
}

SingleTaps down(const Problem& problem) noexcept {
  const Geometry& g = problem.geometry;
  return single_taps(problem.out().h, problem.kernel.h, g.stride.h, g.padding.h, g.dilation.h);
}

bool weight_fits(const Variant& variant, const Problem& problem) noexcept {
  return (variant.deep || problem.group_in() <= variant.block_in) &&
         product(variant.block_in, problem.kernel.h, problem.kernel.w, problem.group_out()) <=
             kInt32;
}

// Output columns of a tile whose taps lie in `in_columns` input columns; 0 if too few.
std::int64_t columns_of(std::int64_t in_columns, std::int64_t halo, const Problem& problem) {
  constexpr std::int64_t kColumns = 128, kPiece = 32;
  const std::int64_t stride = problem.geometry.stride.w;
  const std::int64_t whole = std::min(kColumns, stride * (in_columns - halo));
  // Tiles that start on an input column's first output need one input column less.
  if (problem.geometry.padding.w % stride == 0 && whole % stride == 0 && whole % kPiece == 0)
    return whole;
  const std::int64_t any = std::min(kColumns, stride * (in_columns - halo - 1) + 1);
  return any / kPiece * kPiece;
}

Candidate candidate_nchw(const Variant& variant, const Problem& problem, int sms) noexcept {
  const Pair in = problem.in, out = problem.out();
  const SingleTaps taps_w = across(problem);
  const std::int64_t tile_w =
      columns_of(variant.block_pixels / variant.block_rows, taps_w.halo, problem);
  const double plane = product(out.h, out.w);
  if (tile_w <= 0 || problem.kernel.w + taps_w.tapless > variant.block_taps ||
      (variant.aligned && !vectors_fit(problem)) || out.w % variant.vector != 0 ||
      !weight_fits(variant, problem) ||
      // Offsets in a program are 32-bit: block_out output planes, block_in input planes.
      plane * (variant.block_out + 1) > kInt32 ||
      product(variant.block_in + 1, in.h, in.w) > kInt32)
    return {};
  const std::int64_t programs = cdiv(out.w, tile_w) * cdiv(down(problem).span, variant.block_rows) *
                                cdiv(problem.group_out(), variant.block_out) *
                                problem.geometry.groups * problem.batch;
  if (programs > kInt32) return {};
  // Stores dominate, the narrower the worse.
  const double stores = 1.0 + 2.0 / variant.vector;
  const double waves = static_cast<double>(cdiv(programs, sms));
  const double loads = static_cast<double>(variant.block_in) / 32;
  return {&variant,
          programs,
          waves * (loads + static_cast<double>(variant.block_rows) * stores),
          {{{Param::tile_w, tile_w}}}};
}

Candidate candidate_nhwc(const Variant& variant, const Problem& problem, int sms) noexcept {
  const Geometry& g = problem.geometry;
  const Pair out = problem.out();
  const SingleTaps taps_w = across(problem);
  const std::int64_t tiles_w = cdiv(taps_w.span, variant.block_pixels);
  const std::int64_t tile_w = cdiv(taps_w.span, tiles_w);
  const std::int64_t tile_h = variant.block_pixels / tile_w;
  if ((variant.aligned && !vectors_fit(problem)) || !weight_fits(variant, problem) ||
      product(tile_h + 1, g.stride.h, out.w, problem.out_channels) > kInt32 ||
      product(tile_h + 1, problem.in.w, problem.in_channels) > kInt32)
    return {};
  const std::int64_t rows = problem.batch * cdiv(cdiv(out.h, g.stride.h), tile_h);
  const std::int64_t columns =
      cdiv(g.stride.w * problem.group_out(), variant.block_out) * tiles_w * g.groups * g.stride.h;
  // Weights are loaded once per program, so it takes several tiles where there are many.
  std::int64_t tiles = problem.dtype == DType::f32 ? 8 : 4;
  while (tiles > 1 && columns * cdiv(rows, tiles) < 8 * sms) tiles /= 2;
  const std::int64_t programs = columns * cdiv(rows, tiles);
  if (std::max(programs, rows + tiles) > kInt32) return {};
  const double waves = static_cast<double>(cdiv(programs, sms));
  const double depth =
      variant.deep ? 1.5 * static_cast<double>(problem.group_in()) : variant.block_in;
  return {&variant,
          programs,
          waves * static_cast<double>(tiles * variant.block_pixels) * depth,
          {{{Param::tile_w, tile_w}, {Param::tiles, tiles}}}};
}

constexpr const char* kReason = "at most one tap per output: stored in whole pieces of rows";

}  // namespace

const FamilyRules kSingleTapNchw{Family::single_tap_nchw, kReason, &unsupported_nchw,
                                 &candidate_nchw};
const FamilyRules kSingleTapNhwc{Family::single_tap_nhwc, kReason, &unsupported_nhwc,
                                 &candidate_nhwc};

}  // namespace convt
