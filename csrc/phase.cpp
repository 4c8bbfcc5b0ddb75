// The general family: one output phase per program; see aot/kernels/phase.py.
#include <algorithm>
#include <bit>

#include "arguments.hpp"
#include "families.hpp"

namespace convt {
namespace {

std::int64_t shifted_up(std::int64_t a, int log2) noexcept { return ((a - 1) >> log2) + 1; }

// A program's pixels: a box of 2^log2_h x 2^log2_w quotients (outputs of one phase), and as many
// images as are left.
struct Box {
  int log2_h = 0;
  int log2_w = 0;
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
  const std::int64_t images = std::int64_t{variant.block_pixels} >> (box.log2_h + box.log2_w);
  const double reach_h = product(problem.kernel.h, problem.geometry.dilation.h);
  const double reach_w = product(problem.kernel.w, problem.geometry.dilation.w);
  const double x_image =
      product(problem.in_channels, problem.in.h + reach_h, problem.in.w + reach_w);
  const double y_image = product(problem.out_channels, out.h, out.w);
  return product(images, std::max(x_image, y_image)) <= kInt32;
}

// Time grows with waves, and per input channel with the operands that a program loads; wide and
// unaligned loads take more instructions.
Candidate candidate(const Variant& variant, const Problem& problem, const Room& room) noexcept {
  const Geometry& g = problem.geometry;
  const Pair out = problem.out();
  const Axis h = phases(out.h, g.stride.h, g.dilation.h);
  const Axis w = phases(out.w, g.stride.w, g.dilation.w);
  const Box box = best_box(problem, h, w, variant.block_pixels);
  if ((variant.aligned && !vectors_fit(problem)) ||
      (!variant.wide && !narrow_enough(problem, variant, box)) || !weight_fits(variant, problem))
    return {};
  const std::int64_t images = std::int64_t{variant.block_pixels} >> (box.log2_h + box.log2_w);
  const std::int64_t programs = shifted_up(w.quotients, box.log2_w) *
                                shifted_up(h.quotients, box.log2_h) * cdiv(problem.batch, images) *
                                cdiv(problem.group_out(), variant.block_out) * g.groups *
                                g.stride.h * g.stride.w;
  if (programs > kInt32) return {};
  const std::int64_t depth = cdiv(problem.group_in(), variant.block_in) * variant.block_in;
  const double loads = static_cast<double>(variant.block_pixels + variant.block_out);
  const double slowdown = (variant.aligned ? 1.0 : 2.0) * (variant.wide ? 2.0 : 1.0);
  const double waves = static_cast<double>(cdiv(programs, room.sms));
  return {&variant,
          programs,
          waves * loads * static_cast<double>(depth) * slowdown,
          {{{Param::log2_tile_h, box.log2_h}, {Param::log2_tile_w, box.log2_w}}}};
}

const char* unsupported(const Problem& problem) noexcept {
  // The kernel multiplies residues and inverses, both under the stride, in 32 bits.
  const Pair stride = problem.geometry.stride;
  if (std::max(stride.h, stride.w) > 32768) return "a stride is over 32768";
  return too_large(problem);
}

}  // namespace

const FamilyRules kPhase{Family::phase, "general kernel, the tile of least modelled time",
                         &unsupported, &candidate};

}  // namespace convt
