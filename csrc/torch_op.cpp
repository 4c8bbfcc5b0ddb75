// torch.ops.convt.conv_transpose2d: check, plan, launch. Free of Python.
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "aten.hpp"
#include "convt/launch.hpp"
#include "convt/plan.hpp"
#include "convt/problem.hpp"
#include "convt/require_torch_op.hpp"

namespace convt {
namespace {

using aten::Tensor;
using aten::to;

// `geometry` is stride, padding, output_padding, dilation (each height, width) and groups, as in
// convt::Geometry: one list is 0.6 us cheaper for torch to pass than nine ints. `precision` is the
// value of convt::Precision. `packed`, if given, is the weight once more, in channels_last memory.
constexpr const char* kSchema =
    "conv_transpose2d(Tensor input, Tensor weight, Tensor? bias, int[] geometry, int precision, "
    "Tensor? packed=None) -> Tensor";

Geometry unpack(const std::vector<std::int64_t>& list) {
  if (list.size() != 9) [[unlikely]]
    throw InvalidArgument(
        "conv_transpose2d: expected geometry to have 9 elements (stride, padding, output_padding, "
        "dilation, groups), got " +
        std::to_string(list.size()));
  return {.stride = {list[0], list[1]},
          .padding = {list[2], list[3]},
          .output_padding = {list[4], list[5]},
          .dilation = {list[6], list[7]},
          .groups = list[8]};
}

struct Call {
  Tensor input;
  Tensor weight;
  std::optional<Tensor> bias;
  Geometry geometry;
  std::int64_t precision;
  std::optional<Tensor> packed;

  // Takes over the references on the stack, which is in the order of the schema.
  static Call of(const StableIValue* stack) {
    return {.input = to<Tensor>(stack[0]),
            .weight = to<Tensor>(stack[1]),
            .bias = to<std::optional<Tensor>>(stack[2]),
            .geometry = unpack(to<std::vector<std::int64_t>>(stack[3])),
            .precision = to<std::int64_t>(stack[4]),
            .packed = to<std::optional<Tensor>>(stack[5])};
  }
};

void check_like_input(const Call& call, const char* argument, const Tensor& tensor) {
  if (aten::dtype(tensor) != aten::dtype(call.input)) [[unlikely]]
    throw InvalidArgument(std::string("conv_transpose2d: expected ") + argument +
                          " to have the dtype of input (" + aten::dtype_name(call.input) +
                          "), got " + aten::dtype_name(tensor));
  if (aten::device_type(tensor) != aten::device_type(call.input) ||
      tensor.get_device_index() != call.input.get_device_index()) [[unlikely]]
    throw InvalidArgument(std::string("conv_transpose2d: expected ") + argument +
                          " to be on the device of input (" + aten::device_name(call.input) +
                          "), got " + aten::device_name(tensor));
}

TensorDesc describe(const Tensor& tensor) {
  const std::int32_t dtype = aten::dtype(tensor);
  return {
      .sizes = tensor.sizes().data(),
      .strides = tensor.strides().data(),
      .ndim = tensor.dim(),
      .dtype = dtype == aoti_torch_dtype_float32()    ? DType::f32
               : dtype == aoti_torch_dtype_float16()  ? DType::f16
               : dtype == aoti_torch_dtype_bfloat16() ? DType::bf16
                                                      : DType::other,
      .aligned = aten::is_aligned(tensor),
  };
}

// Everything that can be wrong with a call is found here, before anything is allocated.
Problem describe(const Call& call) {
  check_like_input(call, "weight", call.weight);
  if (call.bias) check_like_input(call, "bias", *call.bias);
  if (call.precision < 0 || call.precision > static_cast<int>(Precision::fp16)) [[unlikely]]
    throw InvalidArgument(
        "conv_transpose2d: expected precision to be 0 (fp32), 1 (tf32) or 2 (fp16), got " +
        std::to_string(call.precision));
  const TensorDesc bias = call.bias ? describe(*call.bias) : TensorDesc{};
  Problem problem =
      Problem::of(describe(call.input), describe(call.weight), call.bias ? &bias : nullptr,
                  call.geometry, static_cast<Precision>(call.precision));
  if (call.packed) {
    check_like_input(call, "packed", *call.packed);
    if (call.packed->dim() != 4 || aten::sizes(*call.packed) != aten::sizes(call.weight))
        [[unlikely]]
      throw InvalidArgument("conv_transpose2d: expected packed to have the size of weight");
  }
  // As in ATen, which has no channels_last for these.
  const bool cuda_double = problem.dtype == DType::other && call.input.is_cuda();
  if (cuda_double || problem.output_numel() == 0) problem.layout = Layout::nchw;
  return problem;
}

// The weight as kernels read it: channels_last memory that starts on a 16-byte boundary.
Tensor packed_weight(const Call& call) {
  const Tensor& weight = call.packed ? *call.packed : call.weight;
  return aten::is_dense(weight, Layout::nhwc) && aten::is_aligned(weight)
             ? weight
             : aten::copy(weight, Layout::nhwc);
}

// What ATen answers, in the strides that this op promises: they depend on the problem alone, not
// on who answers it.
Tensor fallback(const Call& call, const Problem& problem) {
  Tensor y = aten::convolution(call.input, call.weight, call.bias, call.geometry);
  const auto strides = y.strides();
  const aten::Dims promised = aten::dense_strides(aten::sizes(y), problem.layout);
  return std::equal(promised.begin(), promised.end(), strides.begin())
             ? y
             : aten::copy(y, problem.layout);
}

// Planning takes most of a microsecond, and a network asks for the same few plans again and again:
// each thread remembers its latest ones.
const Plan& remembered_plan(const Problem& problem, std::int32_t device) {
  struct Entry {
    std::int32_t device = -1;
    Plan plan;
  };
  thread_local std::array<Entry, 32> entries;
  std::size_t slot = 0;
  for (const std::int64_t value : {problem.batch, problem.in_channels, problem.out_channels,
                                   problem.in.h, problem.in.w, problem.kernel.h})
    slot = slot * 31 + static_cast<std::size_t>(value);
  Entry& entry = entries[slot % entries.size()];
  if (entry.device != device || entry.plan.problem != problem)
    entry = {device, plan(problem, device_target(device))};
  return entry.plan;
}

Tensor conv_transpose2d(const Call& call) {
  const Problem problem = describe(call);
  if (!call.input.is_cuda()) return fallback(call, problem);
  const Pair out = problem.out();
  const aten::Dims sizes{problem.batch, problem.out_channels, out.h, out.w};
  if (problem.output_numel() == 0) return aten::empty(sizes, problem.layout, call.input);

  const std::int32_t device = call.input.get_device_index();
  const Plan& chosen = remembered_plan(problem, device);
  if (!chosen.variant) return fallback(call, problem);
  const Tensor x = aten::dense(call.input, problem.layout);
  const Tensor weight = packed_weight(call);
  const std::optional<Tensor> bias =
      call.bias ? std::optional(aten::contiguous(*call.bias)) : std::nullopt;
  const Tensor y = aten::empty(sizes, problem.layout, call.input);
  launch(chosen,
         {.x = x.const_data_ptr(),
          .weight = weight.const_data_ptr(),
          .bias = bias ? bias->const_data_ptr() : nullptr,
          .y = y.mutable_data_ptr()},
         device, aten::current_stream(device));
  return y;
}

void boxed(StableIValue* stack, std::uint64_t, std::uint64_t) {
  stack[0] = aten::from(conv_transpose2d(Call::of(stack)));
}

STABLE_TORCH_LIBRARY(convt, library) { library.def(kSchema); }
STABLE_TORCH_LIBRARY_IMPL(convt, CPU, library) { library.impl("conv_transpose2d", &boxed); }
STABLE_TORCH_LIBRARY_IMPL(convt, CUDA, library) { library.impl("conv_transpose2d", &boxed); }

// AOTInductor's call of the op, for one type of device: handles are borrowed, but *result.
AOTITorchError aoti(AtenTensorHandle input, AtenTensorHandle weight, const AtenTensorHandle* bias,
                    const std::int64_t* geometry, std::int64_t geometry_size,
                    std::int64_t precision, const AtenTensorHandle* packed,
                    AtenTensorHandle* result) {
  const auto optional = [](const AtenTensorHandle* handle) {
    return handle ? std::optional(aten::share(*handle)) : std::nullopt;
  };
  try {
    const Tensor y = conv_transpose2d({aten::share(input), aten::share(weight), optional(bias),
                                       unpack({geometry, geometry + geometry_size}), precision,
                                       optional(packed)});
    aten::check(aoti_torch_new_tensor_handle(y.get(), result), "new_tensor_handle");
    return AOTI_TORCH_SUCCESS;
  } catch (const std::exception& error) {  // the caller drops the text, as torch's own shims know
    std::cerr << error.what() << '\n';
    return AOTI_TORCH_FAILURE;
  }
}

}  // namespace

void require_torch_op() noexcept {}

}  // namespace convt

// torch's name for a C shim of the op: what compiled models call, past the dispatcher. Declared for
// AOTInductor in python/convt/aoti.py.
#define CONVT_AOTI(device)                                                                       \
  extern "C" CONVT_EXPORT AOTITorchError aoti_torch_##device##_conv_transpose2d(                 \
      AtenTensorHandle input, AtenTensorHandle weight, const AtenTensorHandle* bias,             \
      const std::int64_t* geometry, std::int64_t geometry_size, std::int64_t precision,          \
      const AtenTensorHandle* packed, AtenTensorHandle* result) {                                \
    return convt::aoti(input, weight, bias, geometry, geometry_size, precision, packed, result); \
  }
CONVT_AOTI(cpu)
CONVT_AOTI(cuda)
