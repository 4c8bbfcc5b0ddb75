// torch.ops.convt.conv_transpose2d and conv_transpose3d: check, answer, launch. Free of Python.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>

#include "convt/launch.hpp"
#include "convt/problem.hpp"
#include "convt/require_torch_op.hpp"
#include "core/text.hpp"
#include "run/answer.hpp"
#include "torch/aten.hpp"
#include "torch/call.hpp"

namespace convt {
namespace {

using aten::Handle;
using aten::Tensor;

template <class... Parts>
[[noreturn]] void refuse(const Call& call, const Parts&... parts) {
  throw InvalidArgument(text("conv_transpose", call.settings.dims, "d: expected ", parts...));
}

void check_like_input(const Call& call, const char* argument, const Tensor& tensor) {
  const Handle input = call.input.get(), got = tensor.get();
  if (aten::dtype(got) != aten::dtype(input)) [[unlikely]]
    refuse(call, argument, " to have the dtype of input (", aten::dtype_name(input), "), got ",
           aten::dtype_name(got));
  if (aten::device_type(got) != aten::device_type(input) ||
      aten::device_index(got) != aten::device_index(input)) [[unlikely]]
    refuse(call, argument, " to be on the device of input (", aten::device_name(input), "), got ",
           aten::device_name(got));
}

Facts facts(Handle tensor) {
  if (!tensor) return {};
  const std::int32_t dtype = aten::dtype(tensor);
  return Facts::of(aten::ndim(tensor), aten::sizes(tensor), aten::strides(tensor),
                   dtype == aoti_torch_dtype_float32()    ? DType::f32
                   : dtype == aoti_torch_dtype_float16()  ? DType::f16
                   : dtype == aoti_torch_dtype_bfloat16() ? DType::bf16
                                                          : DType::other,
                   aten::data(tensor));
}

// What a signature cannot tell: that the tensors are alike.
void check(const Call& call) {
  check_like_input(call, "weight", call.weight);
  if (call.bias) check_like_input(call, "bias", call.bias);
  if (call.precision < 0 || call.precision > static_cast<int>(Precision::fp16)) [[unlikely]]
    refuse(call, "precision to be 0 (fp32), 1 (tf32) or 2 (fp16), got ", call.precision);
  if (!call.packed) return;
  check_like_input(call, "packed", call.packed);
  if (aten::ndim(call.packed.get()) != aten::ndim(call.weight.get()) ||
      aten::dims(call.packed.get()) != aten::dims(call.weight.get())) [[unlikely]]
    refuse(call, "packed to have the size of weight");
}

Problem problem_of(const Call& call) {
  const Facts input = facts(call.input.get()), weight = facts(call.weight.get());
  const Facts bias = facts(call.bias.get());
  const TensorDesc bias_desc = bias.desc();
  Problem problem = Problem::of(input.desc(), weight.desc(), bias ? &bias_desc : nullptr,
                                call.settings, static_cast<Precision>(call.precision));
  if (problem.output_numel() == 0) problem.layout = Layout::nchw;  // as in ATen
  return problem;
}

// What ATen answers, in the strides that this op promises: they depend on the problem alone, not
// on who answers it.
Tensor fallback(const Call& call, const Problem& problem) {
  Tensor y = aten::convolution(call.input.get(), call.weight.get(), call.bias.get(), call.settings);
  const Dims promised = dense_strides(aten::dims(y.get()), problem.dims + 2, problem.layout);
  return std::equal(promised.begin(), promised.begin() + problem.dims + 2, aten::strides(y.get()))
             ? std::move(y)
             : aten::copy(y.get(), problem.layout);
}

Tensor conv_transpose(const Call& call) {
  const Handle input = call.input.get();
  check(call);
  if (!aten::is_cuda(input)) return fallback(call, problem_of(call));
  check_driver();  // says it better than torch's allocation would
  const std::shared_ptr<const Answer> answer = convt::answer({.input = facts(input),
                                                              .weight = facts(call.weight.get()),
                                                              .bias = facts(call.bias.get()),
                                                              .packed = facts(call.packed.get()),
                                                              .settings = call.settings,
                                                              .precision = call.precision,
                                                              .device = aten::device_index(input)});
  if (!answer->launch)
    return answer->problem.output_numel() == 0 ? aten::empty(answer->sizes, answer->strides, input)
                                               : fallback(call, answer->problem);

  // Nothing made here outlives the call; torch's allocator gives it to later work of this stream.
  Tensor x_copy, bias_copy, workspace;
  Handle x = input, bias = call.bias.get();
  if (!answer->x_ready) [[unlikely]]
    x = (x_copy = aten::copy(x, answer->problem.layout)).get();
  if (!answer->bias_ready) [[unlikely]]
    bias = (bias_copy = Tensor(aten::new_clone(bias))).get();
  if (answer->workspace_bytes() > 0)
    workspace = aten::empty_bytes(answer->workspace_bytes(), input);
  Tensor y = aten::empty(answer->sizes, answer->strides, input);
  (*answer->launch)({.x = aten::data(x),
                     .weight = aten::data((call.packed ? call.packed : call.weight).get()),
                     .bias = bias ? aten::data(bias) : nullptr,
                     .y = aten::mutable_data(y.get()),
                     .workspace = workspace ? aten::mutable_data(workspace.get()) : nullptr},
                    aten::current_stream(aten::device_index(input)));
  return y;
}

template <int dims>
void boxed(StableIValue* stack, std::uint64_t, std::uint64_t) {
  stack[0] = aten::abi::from(conv_transpose(call_of(dims, stack)).release());
}

STABLE_TORCH_LIBRARY(convt, library) {
  library.def(CONVT_SCHEMA("conv_transpose2d"));
  library.def(CONVT_SCHEMA("conv_transpose3d"));
}
STABLE_TORCH_LIBRARY_IMPL(convt, CPU, library) {
  library.impl("conv_transpose2d", &boxed<2>);
  library.impl("conv_transpose3d", &boxed<3>);
}
STABLE_TORCH_LIBRARY_IMPL(convt, CUDA, library) {
  library.impl("conv_transpose2d", &boxed<2>);
  library.impl("conv_transpose3d", &boxed<3>);
}

// AOTInductor's call of an op, for one type of device: handles are borrowed, but *result.
template <int dims>
AOTITorchError aoti(AtenTensorHandle input, AtenTensorHandle weight, const std::int64_t* geometry,
                    std::int64_t geometry_size, std::int64_t precision,
                    const AtenTensorHandle* bias, const AtenTensorHandle* packed,
                    AtenTensorHandle* result) {
  const auto share = [](const Handle* tensor) {
    return Tensor(tensor ? aten::new_reference(*tensor) : nullptr);
  };
  try {
    const std::span<const std::int64_t> list(geometry, static_cast<std::size_t>(geometry_size));
    const Tensor y = conv_transpose({.input = share(&input),
                                     .weight = share(&weight),
                                     .bias = share(bias),
                                     .packed = share(packed),
                                     .settings = {dims, list},
                                     .precision = precision});
    *result = aten::new_reference(y.get());
    return AOTI_TORCH_SUCCESS;
  } catch (const std::exception& error) {  // the caller drops the text, as torch's own shims know
    std::fprintf(stderr, "%s\n", error.what());
    return AOTI_TORCH_FAILURE;
  }
}

}  // namespace

void require_torch_op() noexcept {}

}  // namespace convt

// torch's names for C shims of the ops: what compiled models call, past the dispatcher. Declared
// for AOTInductor in python/convt/aoti.py.
#define CONVT_AOTI(device, dims)                                                              \
  extern "C" CONVT_EXPORT AOTITorchError aoti_torch_##device##_conv_transpose##dims##d(       \
      AtenTensorHandle input, AtenTensorHandle weight, const std::int64_t* geometry,          \
      std::int64_t geometry_size, std::int64_t precision, const AtenTensorHandle* bias,       \
      const AtenTensorHandle* packed, AtenTensorHandle* result) {                             \
    return convt::aoti<dims>(input, weight, geometry, geometry_size, precision, bias, packed, \
                             result);                                                         \
  }
CONVT_AOTI(cpu, 2)
CONVT_AOTI(cuda, 2)
CONVT_AOTI(cpu, 3)
CONVT_AOTI(cuda, 3)
