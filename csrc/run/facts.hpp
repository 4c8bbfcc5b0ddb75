// What of a call decides how it is answered: everything but the tensors' data. Internal.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <tuple>

#include "convt/problem.hpp"

namespace convt {

// One number per dimension of a batch: N, C, then up to three axes. Those that are not there are 0.
using Dims = std::array<std::int64_t, 5>;

// The strides at::empty gives a batch of these sizes in so many dimensions.
inline Dims dense_strides(const Dims& sizes, std::int64_t ndim, Layout layout) {
  Dims strides{};
  std::int64_t next = 1;
  const auto place = [&](std::size_t dim) {
    strides[dim] = next;
    next *= sizes[dim] > 1 ? sizes[dim] : 1;
  };
  if (layout == Layout::nhwc) place(1);
  for (std::int64_t dim = ndim - 1; dim >= 2; --dim) place(static_cast<std::size_t>(dim));
  if (layout == Layout::nchw) place(1);
  place(0);
  return strides;
}

struct Facts {
  std::int64_t ndim = -1;  // of no tensor
  Dims sizes{};            // no more than five: no problem has more
  Dims strides{};
  DType dtype = DType::other;
  bool aligned = false;  // the data starts on a 16-byte boundary
  bool operator==(const Facts&) const = default;

  explicit operator bool() const { return ndim >= 0; }

  // Of borrowed sizes and strides.
  static Facts of(std::int64_t ndim, const std::int64_t* sizes, const std::int64_t* strides,
                  DType dtype, const void* data) {
    Facts facts{
        .ndim = ndim, .dtype = dtype, .aligned = reinterpret_cast<std::uintptr_t>(data) % 16 == 0};
    const std::int64_t count = known(ndim);
    std::copy_n(sizes, count, facts.sizes.begin());
    std::copy_n(strides, count, facts.strides.begin());
    return facts;
  }

  // How many dimensions are kept of so many.
  static std::int64_t known(std::int64_t ndim) {
    return std::min<std::int64_t>(ndim, std::tuple_size_v<Dims>);
  }

  TensorDesc desc() const { return {sizes.data(), strides.data(), ndim, dtype, aligned}; }

  // Whether a batch lies in memory densely in that order, as Tensor.is_contiguous(memory_format)
  // tells: the stride of a dimension of size one does not matter.
  bool is_dense(Layout layout) const {
    const Dims dense = dense_strides(sizes, ndim, layout);
    for (std::size_t dim = 0; dim < static_cast<std::size_t>(ndim); ++dim)
      if (sizes[dim] != 1 && strides[dim] != dense[dim]) return false;
    return true;
  }
};

// A call on CUDA whose tensors share one device and dtype.
struct Signature {
  Facts input, weight, bias, packed;
  Settings settings;
  std::int64_t precision = 0;  // of convt::Precision
  std::int64_t device = 0;
  bool operator==(const Signature&) const = default;

  // Every field decides every bit: each is folded in by splitmix64's step, an odd product whose
  // high bits come down to the low ones.
  std::uint64_t hash() const {
    std::uint64_t state = 0x9e3779b97f4a7c15u;
    const auto fold = [&](std::int64_t value) {
      state = (state ^ static_cast<std::uint64_t>(value)) * 0xbf58476d1ce4e5b9u;
      state ^= state >> 31;
    };
    for (const Facts* facts : {&input, &weight, &bias, &packed}) {
      fold(facts->ndim * 16 + static_cast<int>(facts->dtype) * 2 + facts->aligned);
      for (std::int64_t dim = 0; dim < Facts::known(facts->ndim); ++dim)
        fold(facts->sizes[static_cast<std::size_t>(dim)]),
            fold(facts->strides[static_cast<std::size_t>(dim)]);
    }
    for (std::size_t i = 3 - static_cast<std::size_t>(settings.dims); i < 3; ++i) {
      const Axis& axis = settings.axes[i];
      fold(axis.stride), fold(axis.padding), fold(axis.output_padding), fold(axis.dilation);
    }
    fold(settings.groups), fold(precision), fold(device);
    return state;
  }
};

}  // namespace convt
