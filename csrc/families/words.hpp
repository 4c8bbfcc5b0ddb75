// The vocabulary of kernel parameters: a parameter named as a function here gets that function's
// value for the problem. aot/embed.py reads the names and fills the values in for every family.
#pragma once

#include <cstdint>

#include "convt/problem.hpp"
#include "convt/step.hpp"
#include "families/single_taps.hpp"

namespace convt::words {

#define CONVT_WORD(name, value) \
  inline auto name([[maybe_unused]] const Problem& p) noexcept { return value; }

// Steps between neighbours of a dense tensor in the problem's layout, in elements.
inline std::int64_t step_of(const Problem& p, std::int64_t inside, std::int64_t channels) noexcept {
  return p.layout == Layout::nhwc ? inside * channels : inside;
}

CONVT_WORD(x, Buffer{Role::input})
CONVT_WORD(weight, Buffer{Role::weight})
CONVT_WORD(bias, Buffer{Role::bias})
CONVT_WORD(y, Buffer{Role::output})

CONVT_WORD(has_bias, std::int64_t{p.bias})
CONVT_WORD(batch, p.batch)
CONVT_WORD(groups, p.groups)
CONVT_WORD(in_channels, p.in_channels)
CONVT_WORD(out_channels, p.out_channels)
CONVT_WORD(group_in, p.group_in())
CONVT_WORD(group_out, p.group_out())

CONVT_WORD(in_d, p.d.in)
CONVT_WORD(in_h, p.h.in)
CONVT_WORD(in_w, p.w.in)
CONVT_WORD(out_d, p.d.out())
CONVT_WORD(out_h, p.h.out())
CONVT_WORD(out_w, p.w.out())
CONVT_WORD(kernel_d, p.d.kernel)
CONVT_WORD(kernel_h, p.h.kernel)
CONVT_WORD(kernel_w, p.w.kernel)
CONVT_WORD(stride_d, p.d.stride)
CONVT_WORD(stride_h, p.h.stride)
CONVT_WORD(stride_w, p.w.stride)
CONVT_WORD(padding_d, p.d.padding)
CONVT_WORD(padding_h, p.h.padding)
CONVT_WORD(padding_w, p.w.padding)
CONVT_WORD(dilation_d, p.d.dilation)
CONVT_WORD(dilation_h, p.h.dilation)
CONVT_WORD(dilation_w, p.w.dilation)

// Strides of input and output, which are dense, in elements.
CONVT_WORD(x_n, p.in_channels* p.d.in* p.h.in* p.w.in)
CONVT_WORD(x_c, p.layout == Layout::nhwc ? 1 : p.d.in * p.h.in * p.w.in)
CONVT_WORD(x_d, step_of(p, p.h.in* p.w.in, p.in_channels))
CONVT_WORD(x_h, step_of(p, p.w.in, p.in_channels))
CONVT_WORD(x_w, step_of(p, 1, p.in_channels))
CONVT_WORD(y_n, p.out_channels* p.d.out() * p.h.out() * p.w.out())
CONVT_WORD(y_c, p.layout == Layout::nhwc ? 1 : p.d.out() * p.h.out() * p.w.out())
CONVT_WORD(y_d, step_of(p, p.h.out() * p.w.out(), p.out_channels))
CONVT_WORD(y_h, step_of(p, p.w.out(), p.out_channels))
CONVT_WORD(y_w, step_of(p, 1, p.out_channels))

// Strides of the weight [in_channels, out_channels / groups, d, h, w] where a kernel reads torch's.
CONVT_WORD(weight_in, p.weight[0])
CONVT_WORD(weight_out, p.weight[1])
CONVT_WORD(weight_d, p.weight[2])
CONVT_WORD(weight_h, p.weight[3])
CONVT_WORD(weight_w, p.weight[4])

// Phases: see convt::Phases.
CONVT_WORD(gcd_d, p.d.phases().gcd)
CONVT_WORD(gcd_h, p.h.phases().gcd)
CONVT_WORD(gcd_w, p.w.phases().gcd)
CONVT_WORD(tap_period_d, p.d.phases().period)
CONVT_WORD(tap_period_h, p.h.phases().period)
CONVT_WORD(tap_period_w, p.w.phases().period)
CONVT_WORD(tap_inverse_d, p.d.phases().inverse)
CONVT_WORD(tap_inverse_h, p.h.phases().inverse)
CONVT_WORD(tap_inverse_w, p.w.phases().inverse)
CONVT_WORD(tap_shift_d, p.d.phases().shift)
CONVT_WORD(tap_shift_h, p.h.phases().shift)
CONVT_WORD(tap_shift_w, p.w.phases().shift)
CONVT_WORD(quotients_d, p.d.phases().quotients)
CONVT_WORD(quotients_h, p.h.phases().quotients)
CONVT_WORD(quotients_w, p.w.phases().quotients)

// At most one tap per output, strides up to 16: see convt::SingleTaps.
CONVT_WORD(residues_h, single_taps(p.h).residues)
CONVT_WORD(residues_w, single_taps(p.w).residues)
CONVT_WORD(empty_h, single_taps(p.h).empty)
CONVT_WORD(empty_w, single_taps(p.w).empty)
CONVT_WORD(joined_h, single_taps(p.h).joined)
CONVT_WORD(first_h, single_taps(p.h).first)
CONVT_WORD(span_h, single_taps(p.h).span)
CONVT_WORD(first_w, single_taps(p.w).first)
CONVT_WORD(span_w, single_taps(p.w).span)
CONVT_WORD(halo_w, single_taps(p.w).halo)

#undef CONVT_WORD

}  // namespace convt::words
