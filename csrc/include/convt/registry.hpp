// The kernels inside this library: one Variant per compiled configuration, generated from the
// manifest of aot/ at build time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "convt/export.hpp"
#include "convt/problem.hpp"

namespace convt {

enum class Family : std::uint8_t {
  pack,
  phase,
  pixel_shuffle,
  pixel_shuffle_shallow,
  single_tap_nchw,
  single_tap_nhwc
};

enum class ImageKind : std::uint8_t { cubin, ptx };

// Kernel parameters by name; aot/kernels uses these names and no others. Pointers come first.
// clang-format off
#define CONVT_PARAMS(X)                                                                           \
  X(x) X(weight) X(bias) X(y)                                                                     \
  X(has_bias) X(batch) X(groups) X(group_in) X(group_out)                                         \
  X(in_h) X(in_w) X(out_h) X(out_w) X(kernel_h) X(kernel_w)                                       \
  X(x_n) X(x_c) X(x_h) X(x_w) X(y_n) X(y_c) X(y_h) X(y_w)                                         \
  X(stride_h) X(stride_w) X(padding_h) X(padding_w) X(dilation_h) X(dilation_w)                   \
  X(gcd_h) X(gcd_w) X(tap_period_h) X(tap_period_w) X(tap_inverse_h) X(tap_inverse_w)             \
  X(tap_shift_h) X(tap_shift_w) X(quotients_h) X(quotients_w) X(log2_tile_h) X(log2_tile_w)      \
  X(residues_h) X(residues_w) X(empty_h) X(empty_w) X(joined_h)                                   \
  X(first_h) X(span_h) X(first_w) X(span_w) X(halo_w)                                             \
  X(edges) X(tile_h) X(tile_w) X(inverse_w) X(tiles_h) X(tiles_w) X(tiles)                        \
  X(log2_step) X(out_tiles) X(items) X(slab) X(slab_lines) X(input_lines)
// clang-format on

enum class Param : std::uint8_t {
#define CONVT_PARAM(name) name,
  CONVT_PARAMS(CONVT_PARAM)
#undef CONVT_PARAM
      count
};
inline constexpr std::size_t kParamCount = static_cast<std::size_t>(Param::count);
inline constexpr std::size_t kPointerCount = 4;  // x, weight, bias, y

CONVT_EXPORT std::string_view name(Param param) noexcept;
CONVT_EXPORT std::string_view name(Family family) noexcept;

enum class ParamType : std::uint8_t { pointer, i32, i64 };

struct Parameter {
  Param param;
  ParamType type;
};

// A compile-time constant of the kernel, as Python source ('32', "'tf32'").
struct Constant {
  std::string_view name;
  std::string_view value;
};

struct Image {
  std::size_t index;  // unique among all images
  int arch;           // 89 for sm_89
  ImageKind kind;
  std::uint32_t shared_bytes;
  std::uint32_t registers;
  std::span<const std::byte> data;
};

struct Variant {
  std::size_t index;  // position in variants()
  std::string_view name;
  std::string_view symbol;  // the kernel's name inside its images
  Family family;
  DType dtype;
  Precision precision;
  Layout layout;
  bool aligned;               // needs 16-byte vectors, or pairs of 16-bit numbers
  bool wide;                  // 64-bit offsets
  bool deep;                  // takes more input channels than block_in
  std::int32_t vector;        // outputs stored at once: divides a row, or a tile's planes' distance
  std::int32_t block_pixels;  // input pixels of a program
  std::int32_t block_out;     // output channels, or columns, of a program
  std::int32_t block_in;      // input channels of a step
  std::int32_t stride;        // across; 0: any
  std::int32_t block_taps;    // kernel columns there is room for; 0: any number
  std::int32_t held;          // tiles whose weights a program keeps
  std::uint32_t warps;
  std::span<const Parameter> parameters;
  std::span<const Constant> constants;
  std::span<const Image> images;

  // This variant compiled for exactly that architecture and kind; null if it was not.
  CONVT_EXPORT const Image* image(int arch, ImageKind kind) const noexcept;
};

CONVT_EXPORT std::span<const Variant> variants() noexcept;

// Architectures with images of `kind`, ascending.
CONVT_EXPORT std::span<const int> architectures(ImageKind kind) noexcept;

}  // namespace convt
