// One kernel launch of a plan. Its argument bytes lack addresses only: a launch fills those in, by
// the roles of their buffers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "convt/export.hpp"
#include "convt/gpu.hpp"
#include "convt/registry.hpp"

namespace convt {

struct Grid {
  std::uint32_t x = 0;
  std::uint32_t y = 1;
  std::uint32_t z = 1;
  bool operator==(const Grid&) const = default;
};

enum class Role : std::uint8_t { none, input, weight, bias, output, workspace };

// Device memory by its role, `offset` bytes behind the start. Role::none is a null pointer.
struct Buffer {
  Role role = Role::none;
  std::int64_t offset = 0;
  bool operator==(const Buffer&) const = default;
};

// A TMA descriptor, encoded by cuTensorMapEncodeTiled once a launch knows the address. Sizes,
// strides and box are in Triton's order, innermost last; the innermost stride is 1 element.
// Elements outside the tensor read as zero.
struct TensorMap {
  Buffer buffer;
  int rank = 0;                           // 1 to 5
  std::array<std::int64_t, 5> sizes{};    // elements
  std::array<std::int64_t, 5> strides{};  // elements; each but the innermost 16-byte multiples
  std::array<std::int32_t, 5> box{};      // elements that one copy moves, up to 256 each
  Math element = Math::f16;               // fp32; tf32 rounds to nearest on load; f16, bf16
  int swizzle = 128;                      // bytes: 0, 32, 64 or 128, as in the kernel's layout
  bool operator==(const TensorMap&) const = default;
};

// A place in the argument bytes that each launch fills in, at offset `at`: 8 bytes for an address,
// 128 for a descriptor.
struct AddressSlot {
  std::uint32_t at = 0;
  Buffer buffer;
};
struct MapSlot {
  std::uint32_t at = 0;
  TensorMap map;
};

struct Step {
  const Variant* variant = nullptr;
  Target image;
  Grid grid;
  std::vector<std::byte> arguments;  // as the kernel reads them
  std::vector<AddressSlot> addresses;
  std::vector<MapSlot> maps;
};

// A family's answer: steps that run one after another in a stream, and the bytes of workspace that
// they share, from offset 0 on. The workspace starts on a 256-byte boundary.
struct Program {
  std::vector<Step> steps;
  std::int64_t workspace_bytes = 0;
};

}  // namespace convt
