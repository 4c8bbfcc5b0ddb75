// What the op needs of torch, through LibTorch's Stable ABI and nothing else, so that one binary
// serves every torch >= 2.10, with CUDA and without. Internal: only torch_op.cpp includes it.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "convt/problem.hpp"
#include "run/facts.hpp"

struct CUstream_st;

// torch >= 2.13 has it; it is null before.
extern "C" __attribute__((weak)) const char* torch_exception_get_what_without_backtrace();

namespace convt::aten {

namespace abi = torch::stable::detail;  // from() and to(): arguments and results of ops

using Handle = AtenTensorHandle;  // borrowed

struct Release {
  void operator()(Handle tensor) const noexcept { aoti_torch_delete_tensor_object(tensor); }
};
// A reference to a torch tensor. torch::stable::Tensor is one too, and allocates each time.
using Tensor = std::unique_ptr<AtenTensorOpaque, Release>;

// Throws if a shim call failed. The shim turns torch's exceptions into a code and drops their type.
inline void check(AOTITorchError code, const char* call) {
  if (code == TORCH_SUCCESS) [[likely]]
    return;
  const char* what = "the reason is on stderr (torch >= 2.13 would tell it here)";
  if (torch_exception_get_what_without_backtrace)
    what = torch_exception_get_what_without_backtrace();
  throw std::runtime_error(std::string("conv_transpose: ") + call + " failed: " + what);
}

// aoti_torch_get_dim(tensor, &value) and its like, as functions.
#define CONVT_GETTER(name, Type, call)                 \
  inline Type name(Handle tensor) {                    \
    Type value{};                                      \
    ::convt::aten::check(call(tensor, &value), #call); \
    return value;                                      \
  }
CONVT_GETTER(ndim, std::int64_t, aoti_torch_get_dim)
CONVT_GETTER(sizes, std::int64_t*, aoti_torch_get_sizes)
CONVT_GETTER(strides, std::int64_t*, aoti_torch_get_strides)
CONVT_GETTER(dtype, std::int32_t, aoti_torch_get_dtype)
CONVT_GETTER(device_type, std::int32_t, aoti_torch_get_device_type)
CONVT_GETTER(device_index, std::int32_t, aoti_torch_get_device_index)
CONVT_GETTER(data, const void*, torch_get_const_data_ptr)
CONVT_GETTER(mutable_data, void*, torch_get_mutable_data_ptr)
CONVT_GETTER(new_reference, Handle, aoti_torch_new_tensor_handle)
CONVT_GETTER(new_clone, Handle, aoti_torch_clone)
#undef CONVT_GETTER

// These take over what is on a kernel's stack.
inline Tensor tensor(StableIValue value) { return Tensor(abi::to<Handle>(value)); }
inline Tensor optional_tensor(StableIValue value) {
  return Tensor(abi::to<std::optional<Handle>>(value).value_or(nullptr));
}

inline bool is_cuda(Handle tensor) { return device_type(tensor) == aoti_torch_device_type_cuda(); }

// "Float", "Double"
inline std::string dtype_name(Handle tensor) {
  return torch::headeronly::toString(
      abi::to<torch::headeronly::ScalarType>(abi::from(dtype(tensor))));
}

// "cpu", "cuda:0"
inline std::string device_name(Handle tensor) {
  if (device_type(tensor) == aoti_torch_device_type_cpu()) return "cpu";
  return (is_cuda(tensor) ? "cuda:" : "another device:") + std::to_string(device_index(tensor));
}

inline Dims dims(Handle tensor) {
  Dims result{};
  std::copy_n(sizes(tensor), Facts::known(ndim(tensor)), result.begin());
  return result;
}

// Uninitialised, of `like`'s dimensions, dtype and device.
inline Tensor empty(const Dims& sizes, const Dims& strides, Handle like) {
  Handle tensor = nullptr;
  check(aoti_torch_empty_strided(ndim(like), sizes.data(), strides.data(), dtype(like),
                                 device_type(like), device_index(like), &tensor),
        "allocation");
  return Tensor(tensor);
}

// Uninitialised bytes on `like`'s device.
inline Tensor empty_bytes(std::int64_t count, Handle like) {
  constexpr std::int64_t one = 1;
  Handle tensor = nullptr;
  check(aoti_torch_empty_strided(1, &count, &one, aoti_torch_dtype_uint8(), device_type(like),
                                 device_index(like), &tensor),
        "allocation");
  return Tensor(tensor);
}

inline Tensor copy(Handle batch, Layout layout) {
  const Dims size = dims(batch);
  Tensor result = empty(size, dense_strides(size, ndim(batch), layout), batch);
  check(aoti_torch_copy_(result.get(), batch, /*non_blocking=*/0), "copy");
  return result;
}

// torch's own transposed convolution. `bias` may be null.
inline Tensor convolution(Handle input, Handle weight, Handle bias, const Settings& settings) {
  const auto list = [&](std::int64_t Axis::* number) {
    std::vector<std::int64_t> numbers;
    for (std::size_t i = 3 - static_cast<std::size_t>(settings.dims); i < 3; ++i)
      numbers.push_back(settings.axes[i].*number);
    return abi::from(numbers);
  };
  const auto reference = [](Handle tensor) { return abi::from(new_reference(tensor)); };
  std::array<StableIValue, 9> stack{
      reference(input),
      reference(weight),
      abi::from(bias ? std::optional(new_reference(bias)) : std::nullopt),
      list(&Axis::stride),
      list(&Axis::padding),
      list(&Axis::dilation),
      abi::from(/*transposed=*/true),
      list(&Axis::output_padding),
      abi::from(settings.groups),
  };
  check(torch_call_dispatcher("aten::convolution", "", stack.data(), TORCH_ABI_VERSION),
        "aten::convolution");
  return Tensor(abi::to<Handle>(stack[0]));
}

// The native handle of torch's current stream. The shim for it is in libtorch_cuda, which
// cannot be linked, or this library would not load beside a CPU-only torch.
inline CUstream_st* current_stream(std::int32_t device) {
  using Getter = AOTITorchError (*)(std::int32_t, void**);
  static const auto getter = [] {
    void* cuda = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return cuda ? reinterpret_cast<Getter>(dlsym(cuda, "aoti_torch_get_current_cuda_stream"))
                : nullptr;
  }();
  if (!getter) [[unlikely]]
    throw std::runtime_error(
        "conv_transpose: aoti_torch_get_current_cuda_stream is not in this torch's "
        "libtorch_cuda.so");
  void* stream = nullptr;
  check(getter(device, &stream), "get_current_cuda_stream");
  return static_cast<CUstream_st*>(stream);
}

}  // namespace convt::aten
