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

enum class ImageKind : std::uint8_t { cubin, ptx };

// The memory order in which a kernel reads the weight: torch's, whose strides are arguments, or
// [in_channels, d, h, w, out_channels / groups], dense and on a 16-byte boundary.
enum class WeightOrder : std::uint8_t { torch, channels_last };

enum class ParamType : std::uint8_t { pointer, i32, i64, tensormap };

struct Parameter {
  std::string_view name;
  ParamType type;
  int rank;  // of a tensormap, behind whose 128 bytes are its sizes (i32) and strides (i64)
};

enum class ConstantType : std::uint8_t { integer, boolean, text };

// A compile-time constant of the kernel.
struct Constant {
  std::string_view name;
  ConstantType type;
  std::int64_t number;
  std::string_view text;
};

// A number that a family's rules read of a variant; see the generated families/<symbol>.hpp.
struct Trait {
  std::string_view name;
  std::int64_t value;
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
  std::string_view family;
  Math math;
  Layout layout;
  WeightOrder weight;
  std::uint32_t warps;
  std::span<const Parameter> parameters;
  std::span<const Constant> constants;
  std::span<const Trait> traits;
  std::span<const Image> images;

  // This variant compiled for exactly that architecture and kind; null if it was not.
  CONVT_EXPORT const Image* image(int arch, ImageKind kind) const noexcept;
};

CONVT_EXPORT std::span<const Variant> variants() noexcept;

// Architectures with images of `kind`, ascending.
CONVT_EXPORT std::span<const int> architectures(ImageKind kind) noexcept;

}  // namespace convt
