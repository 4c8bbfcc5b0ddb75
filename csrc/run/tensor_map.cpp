#include "run/tensor_map.hpp"

#include <array>

namespace convt {
namespace {

CUtensorMapDataType element_of(Math math) noexcept {
  switch (math) {
    case Math::f16:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case Math::bf16:
      return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case Math::tf32:  // rounds to nearest on load
      return CU_TENSOR_MAP_DATA_TYPE_TFLOAT32;
    default:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  }
}

CUtensorMapSwizzle swizzle_of(int bytes) noexcept {
  switch (bytes) {
    case 32:
      return CU_TENSOR_MAP_SWIZZLE_32B;
    case 64:
      return CU_TENSOR_MAP_SWIZZLE_64B;
    case 128:
      return CU_TENSOR_MAP_SWIZZLE_128B;
    default:
      return CU_TENSOR_MAP_SWIZZLE_NONE;
  }
}

}  // namespace

const void* address_of(const Buffer& buffer, const Pointers& pointers) noexcept {
  const void* start = nullptr;
  switch (buffer.role) {
    case Role::input:
      start = pointers.x;
      break;
    case Role::weight:
      start = pointers.weight;
      break;
    case Role::bias:
      start = pointers.bias;
      break;
    case Role::output:
      start = pointers.y;
      break;
    case Role::workspace:
      start = pointers.workspace;
      break;
    case Role::none:
      return nullptr;
  }
  return start ? static_cast<const std::byte*>(start) + buffer.offset : nullptr;
}

CUtensorMap encode(const Driver& driver, const Plan& plan, const TensorMap& map,
                   const void* address) {
  // The driver counts dimensions from the innermost, whose stride it leaves out.
  std::array<cuuint64_t, 5> sizes{}, strides{};
  std::array<cuuint32_t, 5> box{}, steps{1, 1, 1, 1, 1};
  const auto rank = static_cast<std::size_t>(map.rank);
  for (std::size_t i = 0; i < rank; ++i) {
    const std::size_t dim = rank - 1 - i;
    sizes[i] = static_cast<cuuint64_t>(map.sizes[dim]);
    box[i] = static_cast<cuuint32_t>(map.box[dim]);
    if (i > 0)
      strides[i - 1] = static_cast<cuuint64_t>(map.strides[dim] * element_bytes(map.element));
  }
  CUtensorMap result{};
  CONVT_CHECK_PLAN(driver, plan, cuTensorMapEncodeTiled, &result, element_of(map.element),
                   static_cast<cuuint32_t>(rank), const_cast<void*>(address), sizes.data(),
                   strides.data(), box.data(), steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
                   swizzle_of(map.swizzle), CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result;
}

}  // namespace convt
