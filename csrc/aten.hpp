// What the op needs of torch, through LibTorch's Stable ABI and nothing else, so that one binary
// serves every torch >= 2.10, with CUDA and without. Internal: only torch_op.cpp includes it.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "convt/problem.hpp"

struct CUstream_st;

// torch >= 2.13 has it; it is null before.
extern "C" __attribute__((weak)) const char* torch_exception_get_what_without_backtrace();

namespace convt::aten {

using torch::stable::Tensor;
using torch::stable::detail::from;
using torch::stable::detail::to;

// One number per dimension of a batch of images: N, C, H, W.
using Dims = std::array<std::int64_t, 4>;

// Throws if a shim call failed. The shim turns torch's exceptions into a code and drops their type.
inline void check(AOTITorchError code, const char* call) {
  if (code == TORCH_SUCCESS) [[likely]]
    return;
  const char* what = "the reason is on stderr (torch >= 2.13 would tell it here)";
  if (torch_exception_get_what_without_backtrace)
    what = torch_exception_get_what_without_backtrace();
  throw std::runtime_error(std::string("conv_transpose2d: ") + call + " failed: " + what);
}

// One more reference to a tensor that somebody else holds.
inline Tensor share(AtenTensorHandle borrowed) {
  AtenTensorHandle handle = nullptr;
  check(aoti_torch_new_tensor_handle(borrowed, &handle), "new_tensor_handle");
  return Tensor(handle);
}

inline std::int32_t dtype(const Tensor& tensor) {
  std::int32_t value = 0;
  check(aoti_torch_get_dtype(tensor.get(), &value), "get_dtype");
  return value;
}

inline std::int32_t device_type(const Tensor& tensor) {
  std::int32_t value = 0;
  check(aoti_torch_get_device_type(tensor.get(), &value), "get_device_type");
  return value;
}

// "Float", "Double"
inline std::string dtype_name(const Tensor& tensor) {
  return torch::headeronly::toString(tensor.scalar_type());
}

// "cpu", "cuda:0"
inline std::string device_name(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  return (tensor.is_cuda() ? "cuda:" : "another device:") +
         std::to_string(tensor.get_device_index());
}

// Whether the data starts on a 16-byte boundary.
inline bool is_aligned(const Tensor& tensor) {
  return reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
}

// The strides at::empty gives a tensor of these sizes.
inline Dims dense_strides(const Dims& sizes, Layout layout) {
  constexpr std::array<std::size_t, 4> nchw{3, 2, 1, 0}, nhwc{1, 3, 2, 0};
  Dims strides{};
  std::int64_t next = 1;
  for (const std::size_t dim : layout == Layout::nchw ? nchw : nhwc) {
    strides[dim] = next;
    next *= sizes[dim] > 1 ? sizes[dim] : 1;
  }
  return strides;
}

inline Dims sizes(const Tensor& images) {
  const auto sizes = images.sizes();
  return {sizes[0], sizes[1], sizes[2], sizes[3]};
}

// Whether `images` lies in memory densely in that order, as Tensor.is_contiguous(memory_format)
// tells: the stride of a dimension of size one does not matter.
inline bool is_dense(const Tensor& images, Layout layout) {
  const Dims size = sizes(images);
  const Dims dense = dense_strides(size, layout);
  const auto strides = images.strides();
  for (std::size_t dim = 0; dim < 4; ++dim)
    if (size[dim] != 1 && strides[dim] != dense[dim]) return false;
  return true;
}

// Uninitialised, of `like`'s dtype and device.
inline Tensor empty(const Dims& sizes, Layout layout, const Tensor& like) {
  const Dims strides = dense_strides(sizes, layout);
  AtenTensorHandle tensor = nullptr;
  check(aoti_torch_empty_strided(4, sizes.data(), strides.data(), dtype(like), device_type(like),
                                 like.get_device_index(), &tensor),
        "allocation");
  return Tensor(tensor);
}

inline Tensor copy(const Tensor& images, Layout layout) {
  Tensor result = empty(sizes(images), layout, images);
  check(aoti_torch_copy_(result.get(), images.get(), /*non_blocking=*/0), "copy");
  return result;
}

// `images` or a copy of it, dense in `layout`.
inline Tensor dense(const Tensor& images, Layout layout) {
  return is_dense(images, layout) ? images : copy(images, layout);
}

inline Tensor contiguous(const Tensor& tensor) {
  if (tensor.is_contiguous()) return tensor;
  AtenTensorHandle result = nullptr;
  check(aoti_torch_clone(tensor.get(), &result), "clone");
  return Tensor(result);
}

// torch's own transposed convolution.
inline Tensor convolution(const Tensor& input, const Tensor& weight,
                          const std::optional<Tensor>& bias, const Geometry& geometry) {
  const auto list = [](Pair pair) { return from(std::vector<std::int64_t>{pair.h, pair.w}); };
  std::array<StableIValue, 9> stack{
      from(input),
      from(weight),
      from(bias),
      list(geometry.stride),
      list(geometry.padding),
      list(geometry.dilation),
      from(/*transposed=*/true),
      list(geometry.output_padding),
      from(geometry.groups),
  };
  check(torch_call_dispatcher("aten::convolution", "", stack.data(), TORCH_ABI_VERSION),
        "aten::convolution");
  return to<Tensor>(stack[0]);
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
        "conv_transpose2d: aoti_torch_get_current_cuda_stream is not in this torch's "
        "libtorch_cuda.so");
  void* stream = nullptr;
  check(getter(device, &stream), "get_current_cuda_stream");
  return static_cast<CUstream_st*>(stream);
}

}  // namespace convt::aten
