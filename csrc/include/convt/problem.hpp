// A transposed convolution, described by plain integers: no torch, no CUDA.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

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
//   fp32: fp32-grade products (three TF32 products of split operands)
//   tf32: operands rounded to nearest TF32
//   fp16: operands rounded to fp16
enum class Precision : std::uint8_t { fp32, tf32, fp16 };

struct Pair {
  std::int64_t h = 0;
  std::int64_t w = 0;
  bool operator==(const Pair&) const = default;
};

// Arguments of the op besides its tensors, with torch's defaults.
struct Geometry {
  Pair stride{1, 1};
  Pair padding{0, 0};
  Pair output_padding{0, 0};
  Pair dilation{1, 1};
  std::int64_t groups = 1;
  bool operator==(const Geometry&) const = default;
};

// What the core needs to know of a tensor. `sizes` and `strides` (in elements) are borrowed.
struct TensorDesc {
  const std::int64_t* sizes = nullptr;
  const std::int64_t* strides = nullptr;
  std::int64_t ndim = 0;
  DType dtype = DType::f32;
  bool aligned = true;  // the data starts on a 16-byte boundary
};

struct Problem {
  std::int64_t batch = 1;
  std::int64_t in_channels = 1;
  std::int64_t out_channels = 1;
  Pair in;      // input height and width
  Pair kernel;  // kernel height and width
  Geometry geometry;
  DType dtype = DType::f32;
  Layout layout = Layout::nchw;
  Precision precision = Precision::tf32;
  bool bias = false;
  bool aligned = true;  // the input starts on a 16-byte boundary

  bool operator==(const Problem&) const = default;

  // Output height and width; torch's formula.
  CONVT_EXPORT Pair out() const noexcept;
  std::int64_t group_in() const noexcept { return in_channels / geometry.groups; }
  std::int64_t group_out() const noexcept { return out_channels / geometry.groups; }
  std::int64_t input_numel() const noexcept { return batch * in_channels * in.h * in.w; }
  std::int64_t weight_numel() const noexcept {
    return in_channels * group_out() * kernel.h * kernel.w;
  }
  CONVT_EXPORT std::int64_t output_numel() const noexcept;
  // Each input read once, each output written once: the memory floor, in bytes.
  CONVT_EXPORT std::int64_t min_bytes() const noexcept;
  // Multiply-adds of taps that exist, times two (taps cropped by padding included).
  CONVT_EXPORT double flops() const noexcept;

  // How products have to be made: as `precision` says, but fp32's instead of TF32's where those buy
  // no time, or where cuDNN does not use them even if it may.
  CONVT_EXPORT Precision needed_precision() const noexcept;

  // Throws InvalidArgument unless torch would accept these numbers.
  CONVT_EXPORT void validate() const;
  CONVT_EXPORT std::string str() const;

  // The problem of `conv_transpose2d(input, weight, bias, geometry)`: checks ranks, channels and
  // dtypes as torch does and applies its layout rule (channels_last if either tensor is).
  CONVT_EXPORT static Problem of(const TensorDesc& input, const TensorDesc& weight,
                                 const TensorDesc* bias, const Geometry& geometry,
                                 Precision precision);
};

CONVT_EXPORT const char* name(DType dtype) noexcept;
CONVT_EXPORT const char* name(Layout layout) noexcept;
CONVT_EXPORT const char* name(Precision precision) noexcept;

}  // namespace convt
