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

// `geometry` is stride, padding, output_padding, dilation (each height, width) and groups, as in
// convt::Geometry: one list is 0.6 us cheaper for torch to pass than nine ints. `precision` is the
// value of convt::Precision. What may be None comes last: torch.export.draft_export refuses a None
// that is no default. `packed`, if given, is the weight once more, in channels_last memory.
constexpr const char* kSchema =
    "conv_transpose2d(Tensor input, Tensor weight, SymInt[] geometry, int precision, "
    "Tensor? bias=None, Tensor? packed=None) -> Tensor";

struct Call {
  aten::Tensor input;
  aten::Tensor weight;
  aten::Tensor bias;    // or null
  aten::Tensor packed;  // or null
  Geometry geometry;
  std::int64_t precision = 0;
};

inline Geometry unpack(std::span<const std::int64_t, 9> list) {
  return {.stride = {list[0], list[1]},
          .padding = {list[2], list[3]},
          .output_padding = {list[4], list[5]},
          .dilation = {list[6], list[7]},
          .groups = list[8]};
}

inline Geometry checked(std::span<const std::int64_t> list) {
  if (list.size() != 9) [[unlikely]]
    throw InvalidArgument(
        "conv_transpose2d: expected geometry to have 9 elements (stride, padding, output_padding, "
        "dilation, groups), got " +
        std::to_string(list.size()));
  return unpack(list.first<9>());
}

// Takes over the references on the stack, in the order of kSchema.
inline Call call_of(const StableIValue* stack) {
  Call call{.input = aten::tensor(stack[0]),
            .weight = aten::tensor(stack[1]),
            .bias = aten::optional_tensor(stack[4]),
            .packed = aten::optional_tensor(stack[5]),
            .geometry = {},
            .precision = aten::abi::to<std::int64_t>(stack[3])};
  call.geometry = checked(aten::abi::to<std::vector<std::int64_t>>(stack[2]));
  return call;
}

}  // namespace convt
