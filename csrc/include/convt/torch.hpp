// convt for programs that use libtorch: a function on at::Tensor, compiled with your own libtorch.
// Link convt::torch. The ops are registered as torch.ops.convt.conv_transpose2d
// and conv_transpose3d.
#pragma once

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <vector>

#include "convt/problem.hpp"
#include "convt/require_torch_op.hpp"

namespace convt {

// What torch would multiply fp32 convolutions with at this moment.
inline Precision torch_precision() {
  const at::Context& context = at::globalContext();
  // By operator: the question for all of cuDNN throws once convolutions and RNNs differ.
  const auto conv = context.float32Precision(at::Float32Backend::CUDA, at::Float32Op::CONV);
  return context.userEnabledCuDNN() && conv == at::Float32Precision::TF32 ? Precision::tf32
                                                                          : Precision::fp32;
}

namespace detail {

// One of the ops by its name.
using Op = at::Tensor(const at::Tensor&, const at::Tensor&, c10::SymIntArrayRef, int64_t,
                      const std::optional<at::Tensor>&, const std::optional<at::Tensor>&);
inline c10::TypedOperatorHandle<Op> op(const char* name) {
  require_torch_op();
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Op>();
}

}  // namespace detail

// at::conv_transpose2d answered by convt's kernels.
//
//   input     [N, C, H, W]
//   weight    [C, out_channels / groups, kH, kW]
//   bias      [out_channels], or nothing
//   packed    the weight in channels_last memory, if you keep one; else each call makes it, which
//             costs nothing where the weight already is
//
// Errors of torch's, out of memory too, come as std::runtime_error: the C shims below the op drop
// their type. Before torch 2.13 they print the reason to stderr.
// CPU tensors, and CUDA problems that no kernel serves, go to ATen. No gradients: for inference.
// Throws c10::Error or convt::InvalidArgument (a std::runtime_error) where torch would refuse.
inline at::Tensor conv_transpose2d(const at::Tensor& input, const at::Tensor& weight,
                                   const std::optional<at::Tensor>& bias = std::nullopt,
                                   const Geometry& geometry = {},
                                   std::optional<Precision> precision = std::nullopt,
                                   const std::optional<at::Tensor>& packed = std::nullopt) {
  static const auto op = detail::op("convt::conv_transpose2d");
  const Geometry& g = geometry;
  const std::vector<int64_t> list{g.stride.h,   g.stride.w,         g.padding.h,
                                  g.padding.w,  g.output_padding.h, g.output_padding.w,
                                  g.dilation.h, g.dilation.w,       g.groups};
  const auto value = static_cast<int64_t>(precision.value_or(torch_precision()));
  return op.call(input, weight, c10::fromIntArrayRefSlow(list), value, bias, packed);
}

// at::conv_transpose3d likewise.
//
//   input     [N, C, D, H, W]
//   weight    [C, out_channels / groups, kD, kH, kW]
//   packed    the weight in channels_last_3d memory
inline at::Tensor conv_transpose3d(const at::Tensor& input, const at::Tensor& weight,
                                   const std::optional<at::Tensor>& bias = std::nullopt,
                                   const Geometry3d& geometry = {},
                                   std::optional<Precision> precision = std::nullopt,
                                   const std::optional<at::Tensor>& packed = std::nullopt) {
  static const auto op = detail::op("convt::conv_transpose3d");
  std::vector<int64_t> list;
  for (const Triple& t :
       {geometry.stride, geometry.padding, geometry.output_padding, geometry.dilation})
    list.insert(list.end(), {t.d, t.h, t.w});
  list.push_back(geometry.groups);
  const auto value = static_cast<int64_t>(precision.value_or(torch_precision()));
  return op.call(input, weight, c10::fromIntArrayRefSlow(list), value, bias, packed);
}

}  // namespace convt
