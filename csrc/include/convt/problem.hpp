// A transposed convolution, described by plain integers: no torch, no CUDA.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>

#include "convt/axis.hpp"
#include "convt/export.hpp"

namespace convt {

// Bad input. The text names the op, the argument, what was expected and what came.
struct CONVT_EXPORT InvalidArgument : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class DType : std::uint8_t { f32, f16, bf16, other };

// Memory order of input and output: contiguous, or torch's channels_last.
enum class Layout : std::uint8_t { nchw, nhwc };

// How fp32 operands are multiplied; 16-bit types ignore it. Accumulation is always fp32.
//   fp32: fp32-grade products (six bf16 products of split operands, summed block by block)
//   tf32: operands rounded to nearest TF32
//   fp16: operands rounded to fp16
enum class Precision : std::uint8_t { fp32, tf32, fp16 };

// The dtype together with how it is multiplied: fp32, tf32 and fp16 are products of fp32 tensors.
enum class Math : std::uint8_t { fp32, tf32, fp16, f16, bf16, other };

CONVT_EXPORT Math math_of(DType dtype, Precision precision) noexcept;
CONVT_EXPORT DType dtype_of(Math math) noexcept;
CONVT_EXPORT Precision precision_of(Math math) noexcept;  // fp16 for 16-bit types
// Bytes of an element.
constexpr std::int64_t element_bytes(Math math) noexcept {
  return math == Math::f16 || math == Math::bf16 ? 2 : 4;
}

struct Pair {
  std::int64_t h = 0;
  std::int64_t w = 0;
  bool operator==(const Pair&) const = default;
};

struct Triple {
  std::int64_t d = 0;
  std::int64_t h = 0;
  std::int64_t w = 0;
  bool operator==(const Triple&) const = default;
};

// Arguments of the two-dimensional op besides its tensors, with torch's defaults.
struct Geometry {
  Pair stride{1, 1};
  Pair padding{0, 0};
  Pair output_padding{0, 0};
  Pair dilation{1, 1};
  std::int64_t groups = 1;
  bool operator==(const Geometry&) const = default;
};

// And of the three-dimensional op.
struct Geometry3d {
  Triple stride{1, 1, 1};
  Triple padding{0, 0, 0};
  Triple output_padding{0, 0, 0};
  Triple dilation{1, 1, 1};
  std::int64_t groups = 1;
  bool operator==(const Geometry3d&) const = default;
};

// The same for one to three dimensions: stride, padding, output_padding and dilation of the axes d,
// h and w, whose sizes are the tensors' to tell.
struct CONVT_EXPORT Settings {
  int dims = 2;
  std::array<Axis, 3> axes;
  std::int64_t groups = 1;

  Settings() = default;
  Settings(const Geometry& geometry) noexcept;
  Settings(const Geometry3d& geometry) noexcept;
  // Of the op's list: stride, padding, output_padding, dilation, each a number for each axis, then
  // groups. Throws InvalidArgument unless it has 4 * dims + 1 numbers.
  Settings(int dims, std::span<const std::int64_t> list);
  bool operator==(const Settings&) const = default;
};

// What the core needs to know of a tensor. `sizes` and `strides` (in elements) are borrowed.
struct TensorDesc {
  const std::int64_t* sizes = nullptr;
  const std::int64_t* strides = nullptr;
  std::int64_t ndim = 0;
  DType dtype = DType::f32;
  bool aligned = true;  // the data starts on a 16-byte boundary
};

// A layer on an input. It always has three axes: those that the caller did not give have input,
// kernel and stride of 1, so that a kernel for three axes serves one and two of them as well.
struct Problem {
  int dims = 2;  // axes that the caller gave: w, then h, then d
  std::int64_t batch = 1;
  std::int64_t in_channels = 1;
  std::int64_t out_channels = 1;
  std::int64_t groups = 1;
  Axis d, h, w;
  Math math = Math::tf32;
  Layout layout = Layout::nchw;
  bool bias = false;
  bool aligned = true;  // the input starts on a 16-byte boundary
  // Strides of the weight [in_channels, out_channels / groups, d, h, w], in elements.
  std::array<std::int64_t, 5> weight{};
  bool weight_aligned = true;  // the weight starts on a 16-byte boundary

  bool operator==(const Problem&) const = default;

  // Output height and width; torch's formula.
  Pair out() const noexcept { return {h.out(), w.out()}; }
  DType dtype() const noexcept { return dtype_of(math); }
  Precision precision() const noexcept { return precision_of(math); }
  std::int64_t element_bytes() const noexcept { return convt::element_bytes(math); }
  std::int64_t group_in() const noexcept { return in_channels / groups; }
  std::int64_t group_out() const noexcept { return out_channels / groups; }
  std::int64_t taps() const noexcept { return d.kernel * h.kernel * w.kernel; }
  std::int64_t input_numel() const noexcept { return batch * in_channels * d.in * h.in * w.in; }
  std::int64_t weight_numel() const noexcept { return in_channels * group_out() * taps(); }
  std::int64_t output_numel() const noexcept {
    return batch * out_channels * d.out() * h.out() * w.out();
  }
  // Each input read once, each output written once: the memory floor, in bytes.
  CONVT_EXPORT std::int64_t min_bytes() const noexcept;
  // Multiply-adds of taps that exist, times two (taps cropped by padding included).
  CONVT_EXPORT double flops() const noexcept;
  // How products have to be made: as `math` says, but fp32's instead of TF32's where those buy no
  // time, or where cuDNN does not use them even if it may.
  CONVT_EXPORT Math needed_math() const noexcept;
  // Whether the weight lies as [in_channels, d, h, w, out_channels / groups], densely and on a
  // 16-byte boundary: what kernels of the weight order `channels_last` read.
  CONVT_EXPORT bool weight_is_packed() const noexcept;
  // This problem with a weight of torch's sizes that lies as `tensor` tells.
  CONVT_EXPORT Problem with_weight(const TensorDesc& tensor) const;
  // This problem with a packed weight.
  CONVT_EXPORT Problem with_packed_weight() const noexcept;

  // Throws InvalidArgument unless torch would accept these numbers.
  CONVT_EXPORT void validate() const;
  CONVT_EXPORT std::string str() const;

  // The problem of `conv_transpose{1,2,3}d(input, weight, bias, settings)`: checks ranks, channels
  // and dtypes as torch does and applies its layout rule (channels_last if either tensor is).
  CONVT_EXPORT static Problem of(const TensorDesc& input, const TensorDesc& weight,
                                 const TensorDesc* bias, const Settings& settings,
                                 Precision precision);
};

CONVT_EXPORT const char* name(DType dtype) noexcept;
CONVT_EXPORT const char* name(Layout layout) noexcept;
CONVT_EXPORT const char* name(Precision precision) noexcept;
CONVT_EXPORT const char* name(Math math) noexcept;

}  // namespace convt
