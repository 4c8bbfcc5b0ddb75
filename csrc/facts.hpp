// What of a call decides how it is answered: everything but the tensors' data. Internal.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "convt/problem.hpp"

namespace convt {

// One number per dimension of a batch of images: N, C, H, W.
using Dims = std::array<std::int64_t, 4>;

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

struct Facts {
  std::int64_t ndim = -1;  // of no tensor
  Dims sizes{};            // no more than four: no problem has more
  Dims strides{};
  std::int32_t dtype = 0;  // dtypes and devices by the number of whoever asks
  std::int32_t device_type = 0;
  std::int32_t device_index = 0;
  bool aligned = false;  // the data starts on a 16-byte boundary
  bool operator==(const Facts&) const = default;

  // Whether images lie in memory densely in that order, as Tensor.is_contiguous(memory_format)
  // tells: the stride of a dimension of size one does not matter.
  bool is_dense(Layout layout) const {
    const Dims dense = dense_strides(sizes, layout);
    for (std::size_t dim = 0; dim < 4; ++dim)
      if (sizes[dim] != 1 && strides[dim] != dense[dim]) return false;
    return true;
  }
};

struct Signature {
  Facts input, weight, bias, packed;
  Geometry geometry;
  std::int64_t precision = 0;
  bool operator==(const Signature&) const = default;

  // A number to tell a network's calls apart by.
  std::size_t hash() const {
    std::size_t hash = static_cast<std::size_t>(geometry.stride.h);
    for (const Dims& sizes : {input.sizes, weight.sizes})
      for (const std::int64_t size : sizes) hash = hash * 31 + static_cast<std::size_t>(size);
    return hash;
  }
};

}  // namespace convt
