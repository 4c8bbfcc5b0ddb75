// A call of the op as torch hands it over: references and numbers, nothing checked yet.
// Internal: only torch_op.cpp includes it.
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "aten.hpp"
#include "convt/problem.hpp"

namespace convt {

// `geometry` is stride, padding, output_padding, dilation (each height, width) and groups, as in
// convt::Geometry: one list is 0.6 us cheaper for torch to pass than nine ints. `precision` is the
// value of convt::Precision. `packed`, if given, is the weight once more, in channels_last memory.
constexpr const char* kSchema =
    "conv_transpose2d(Tensor input, Tensor weight, Tensor? bias, int[] geometry, int precision, "
    "Tensor? packed=None) -> Tensor";

// The same for a module's warm calls, where every argument costs: of the weight only the packed
// one, and in a text, which torch passes 0.4 us sooner than a list, eleven integers: geometry,
// precision, and whether the weight itself is in channels_last memory.
constexpr const char* kPackedSchema =
    "_packed_conv_transpose2d(Tensor input, Tensor packed, Tensor? bias, str numbers) -> Tensor";

struct Call {
  aten::Tensor input;
  aten::Tensor weight;
  aten::Tensor bias;    // or null
  aten::Tensor packed;  // or null
  Geometry geometry;
  std::int64_t precision = 0;
  // If `weight` is a packed copy: how the weight itself lies.
  std::optional<Layout> weight_layout;
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

inline std::array<std::int64_t, 11> parse(std::string_view text) {
  std::array<std::int64_t, 11> numbers{};
  const char* at = text.data();
  const char* const end = at + text.size();
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const auto [stop, error] = std::from_chars(at, end, numbers[i]);
    const bool ends = i + 1 == numbers.size() ? stop == end : stop != end && *stop == ',';
    if (error != std::errc{} || !ends) [[unlikely]]
      throw InvalidArgument(
          "conv_transpose2d: expected numbers to be 11 integers with commas between, got " +
          std::string(text));
    at = stop + 1;
  }
  return numbers;
}

// Takes over the references on the stack, in the order of kSchema.
inline Call call_of(const StableIValue* stack) {
  Call call{.input = aten::tensor(stack[0]),
            .weight = aten::tensor(stack[1]),
            .bias = aten::optional_tensor(stack[2]),
            .packed = aten::optional_tensor(stack[5]),
            .geometry = {},
            .precision = aten::abi::to<std::int64_t>(stack[4]),
            .weight_layout = {}};
  call.geometry = checked(aten::abi::to<std::vector<std::int64_t>>(stack[3]));
  return call;
}

// Likewise, in the order of kPackedSchema.
inline Call packed_call_of(const StableIValue* stack) {
  const aten::Text text(stack[3]);
  Call call{.input = aten::tensor(stack[0]),
            .weight = aten::tensor(stack[1]),
            .bias = aten::optional_tensor(stack[2]),
            .packed = {},
            .geometry = {},
            .precision = 0,
            .weight_layout = {}};
  const std::array<std::int64_t, 11> numbers = parse(text.view());
  call.geometry = unpack(std::span(numbers).first<9>());
  call.precision = numbers[9];
  call.weight_layout = numbers[10] ? Layout::nhwc : Layout::nchw;
  return call;
}

}  // namespace convt
