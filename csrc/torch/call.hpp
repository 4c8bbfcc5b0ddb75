// A call of the op as torch hands it over: references and numbers, nothing checked yet.
// Internal: only torch_op.cpp includes it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "convt/problem.hpp"
#include "torch/aten.hpp"

namespace convt {

// The ops conv_transpose2d and conv_transpose3d. `geometry` is stride, padding, output_padding,
// dilation, each a number for each axis, and groups, as convt::Settings reads it: one list is 0.6
// us cheaper for torch to pass than nine ints. `precision` is the value of convt::Precision. What
// may be None comes last: torch.export.draft_export refuses a None that is no default. `packed`, if
// given, is the weight once more, in channels_last memory.
#define CONVT_SCHEMA(name)                                                \
  name "(Tensor input, Tensor weight, SymInt[] geometry, int precision, " \
       "Tensor? bias=None, Tensor? packed=None) -> Tensor"

struct Call {
  aten::Tensor input;
  aten::Tensor weight;
  aten::Tensor bias;    // or null
  aten::Tensor packed;  // or null
  Settings settings;
  std::int64_t precision = 0;
};

// Takes over the references on the stack, in the order of the schema.
inline Call call_of(int dims, const StableIValue* stack) {
  Call call{.input = aten::tensor(stack[0]),
            .weight = aten::tensor(stack[1]),
            .bias = aten::optional_tensor(stack[4]),
            .packed = aten::optional_tensor(stack[5]),
            .settings = {},
            .precision = aten::abi::to<std::int64_t>(stack[3])};
  call.settings = {dims, aten::abi::to<std::vector<std::int64_t>>(stack[2])};
  return call;
}

}  // namespace convt
