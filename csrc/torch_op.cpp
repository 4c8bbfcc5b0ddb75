// torch.ops.convt.conv_transpose2d: check, plan, launch. Free of Python.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

#include "aten.hpp"
#include "call.hpp"
#include "convt/launch.hpp"
#include "convt/plan.hpp"
#include "convt/problem.hpp"
#include "convt/require_torch_op.hpp"

namespace convt {
namespace {

using aten::Handle;
using aten::Tensor;

// Fills `packed`, dense channels_last memory, from the weight.
constexpr const char* kPackSchema = "_pack(Tensor weight, Tensor(a!) packed) -> ()";

void check_like_input(const Call& call, const char* argument, const Tensor& tensor) {
  const Handle input = call.input.get(), got = tensor.get();
  if (aten::dtype(got) != aten::dtype(input)) [[unlikely]]
    throw InvalidArgument(std::string("conv_transpose2d: expected ") + argument +
                          " to have the dtype of input (" + aten::dtype_name(input) + "), got " +
                          aten::dtype_name(got));
  if (aten::device_type(got) != aten::device_type(input) ||
      aten::device_index(got) != aten::device_index(input)) [[unlikely]]
    throw InvalidArgument(std::string("conv_transpose2d: expected ") + argument +
                          " to be on the device of input (" + aten::device_name(input) + "), got " +
                          aten::device_name(got));
}

TensorDesc describe(Handle tensor) {
  const std::int32_t dtype = aten::dtype(tensor);
  return {
      .sizes = aten::sizes(tensor),
      .strides = aten::strides(tensor),
      .ndim = aten::ndim(tensor),
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
  if (call.bias) check_like_input(call, "bias", call.bias);
  if (call.precision < 0 || call.precision > static_cast<int>(Precision::fp16)) [[unlikely]]
    throw InvalidArgument(
        "conv_transpose2d: expected precision to be 0 (fp32), 1 (tf32) or 2 (fp16), got " +
        std::to_string(call.precision));
  const TensorDesc bias = call.bias ? describe(call.bias.get()) : TensorDesc{};
  Problem problem = Problem::of(describe(call.input.get()), describe(call.weight.get()),
                                call.bias ? &bias : nullptr, call.geometry,
                                static_cast<Precision>(call.precision));
  if (call.packed) {
    check_like_input(call, "packed", call.packed);
    if (aten::ndim(call.packed.get()) != 4 ||
        aten::dims(call.packed.get()) != aten::dims(call.weight.get())) [[unlikely]]
      throw InvalidArgument("conv_transpose2d: expected packed to have the size of weight");
    problem = problem.with_weight(describe(call.packed.get()));
  }
  // As in ATen, which has no channels_last for these.
  const bool cuda_double = problem.dtype() == DType::other && aten::is_cuda(call.input.get());
  if (cuda_double || problem.output_numel() == 0) problem.layout = Layout::nchw;
  return problem;
}

// What ATen answers, in the strides that this op promises: they depend on the problem alone, not
// on who answers it.
Tensor fallback(const Call& call, const Problem& problem) {
  Tensor y = aten::convolution(call.input.get(), call.weight.get(), call.bias.get(), call.geometry);
  const Dims promised = dense_strides(aten::dims(y.get()), problem.layout);
  return std::equal(promised.begin(), promised.end(), aten::strides(y.get()))
             ? std::move(y)
             : aten::copy(y.get(), problem.layout);
}

void pack(Handle weight, Handle packed) {
  if (aten::is_cuda(weight)) {
    const std::int32_t device = aten::device_index(weight);
    const Plan plan = plan_pack(describe(weight), device_gpu(device));
    if (plan.served())
      return launch(plan, {.weight = aten::data(weight), .y = aten::mutable_data(packed)}, device,
                    aten::current_stream(device));
  }
  aten::copy_into(packed, weight);
}

Facts facts(Handle tensor) {
  if (!tensor) return {};
  Facts facts{.ndim = aten::ndim(tensor),
              .dtype = aten::dtype(tensor),
              .device_type = aten::device_type(tensor),
              .device_index = aten::device_index(tensor),
              .aligned = aten::is_aligned(tensor)};
  const std::int64_t count = std::min<std::int64_t>(facts.ndim, 4);
  std::copy_n(aten::sizes(tensor), count, facts.sizes.begin());
  std::copy_n(aten::strides(tensor), count, facts.strides.begin());
  return facts;
}

// How calls of one signature are answered on CUDA.
struct Answer {
  Problem problem;
  Dims sizes{}, strides{};       // of the output
  std::optional<Launch> launch;  // none: ATen answers, or the output is empty
  bool x_ready = false;          // operands that can be read where they are
  bool bias_ready = false;
};

Answer answer(const Call& call) {
  Answer answer;
  const Problem& problem = answer.problem = describe(call);
  const Pair out = problem.out();
  answer.sizes = {problem.batch, problem.out_channels, out.h, out.w};
  answer.strides = dense_strides(answer.sizes, problem.layout);
  const std::int32_t device = aten::device_index(call.input.get());
  const Plan chosen = plan(problem, device_gpu(device));
  if (!chosen.served()) return answer;
  answer.launch.emplace(chosen, device);
  answer.x_ready = facts(call.input.get()).is_dense(problem.layout);
  answer.bias_ready = !call.bias || aten::is_contiguous(call.bias.get());
  return answer;
}

// Checks and planning take microseconds, and a network asks for the same few calls again and
// again: each thread remembers its latest ones.
const Answer& remembered_answer(const Call& call) {
  struct Entry {
    Signature signature;
    Answer answer;
  };
  thread_local std::array<Entry, 32> entries;
  const Signature signature{facts(call.input.get()), facts(call.weight.get()),
                            facts(call.bias.get()),  facts(call.packed.get()),
                            call.geometry,           call.precision};
  Entry& entry = entries[signature.hash() % entries.size()];
  if (entry.signature != signature) [[unlikely]]
    entry = {signature, answer(call)};
  return entry.answer;
}

Tensor conv_transpose2d(const Call& call) {
  const Handle input = call.input.get();
  if (!aten::is_cuda(input)) return fallback(call, describe(call));
  check_driver();  // says it better than torch's allocation would
  const Answer& answer = remembered_answer(call);
  const Problem& problem = answer.problem;
  if (!answer.launch)
    return problem.output_numel() == 0 ? aten::empty(answer.sizes, answer.strides, input)
                                       : fallback(call, problem);
  Handle x = input, bias = call.bias.get();
  const Handle weight = call.packed ? call.packed.get() : call.weight.get();
  std::array<Tensor, 3> copies;
  if (!answer.x_ready) [[unlikely]]
    x = (copies[0] = aten::copy(x, problem.layout)).get();
  if (!answer.bias_ready) [[unlikely]]
    bias = (copies[1] = Tensor(aten::new_clone(bias))).get();
  Tensor y = aten::empty(answer.sizes, answer.strides, input);
  void* workspace = nullptr;
  if (const std::int64_t bytes = answer.launch->plan().workspace_bytes) {
    // Elements of the input's dtype, as many as hold the bytes.
    const std::int64_t count = (bytes + problem.element_bytes() - 1) / problem.element_bytes();
    copies[2] = aten::empty({1, 1, 1, count}, Layout::nchw, input);
    workspace = aten::mutable_data(copies[2].get());
  }
  (*answer.launch)({.x = aten::data(x),
                    .weight = aten::data(weight),
                    .bias = bias ? aten::data(bias) : nullptr,
                    .y = aten::mutable_data(y.get()),
                    .workspace = workspace},
                   aten::current_stream(aten::device_index(input)));
  return y;
}

void boxed(StableIValue* stack, std::uint64_t, std::uint64_t) {
  stack[0] = aten::abi::from(conv_transpose2d(call_of(stack)).release());
}

void boxed_pack(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Tensor weight = aten::tensor(stack[0]), packed = aten::tensor(stack[1]);
  if (aten::ndim(weight.get()) != 4 || facts(packed.get()).sizes != facts(weight.get()).sizes ||
      aten::ndim(packed.get()) != 4 || !facts(packed.get()).is_dense(Layout::nhwc) ||
      aten::dtype(packed.get()) != aten::dtype(weight.get())) [[unlikely]]
    throw InvalidArgument(
        "conv_transpose2d: expected packed to be like weight, in channels_last memory");
  pack(weight.get(), packed.get());
}

void implement(torch::stable::detail::StableLibrary& library) {
  library.impl("conv_transpose2d", &boxed);
  library.impl("_pack", &boxed_pack);
}

STABLE_TORCH_LIBRARY(convt, library) {
  for (const char* schema : {kSchema, kPackSchema}) library.def(schema);
}
STABLE_TORCH_LIBRARY_IMPL(convt, CPU, library) { implement(library); }
STABLE_TORCH_LIBRARY_IMPL(convt, CUDA, library) { implement(library); }

// AOTInductor's call of the op, for one type of device: handles are borrowed, but *result.
AOTITorchError aoti(AtenTensorHandle input, AtenTensorHandle weight, const AtenTensorHandle* bias,
                    const std::int64_t* geometry, std::int64_t geometry_size,
                    std::int64_t precision, const AtenTensorHandle* packed,
                    AtenTensorHandle* result) {
  const auto share = [](const Handle* tensor) {
    return Tensor(tensor ? aten::new_reference(*tensor) : nullptr);
  };
  try {
    const Tensor y =
        conv_transpose2d({.input = share(&input),
                          .weight = share(&weight),
                          .bias = share(bias),
                          .packed = share(packed),
                          .geometry = checked({geometry, static_cast<std::size_t>(geometry_size)}),
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
