#include "convt/problem.hpp"

#include <initializer_list>

#include "text.hpp"

namespace convt {
namespace {

// Sizes as torch prints them.
std::string sizes(const TensorDesc& tensor) {
  std::string out = "[";
  for (std::int64_t i = 0; i < tensor.ndim; ++i) append(out, text(i ? ", " : "", tensor.sizes[i]));
  return out + "]";
}

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw InvalidArgument(text("conv_transpose2d: ", parts...));
}

// A macro, so that a text is only put together for a problem that has one.
#define CONVT_EXPECT(holds, ...) \
  do {                           \
    if (!(holds)) [[unlikely]]   \
      fail(__VA_ARGS__);         \
  } while (false)

// (in - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1, or a throw.
std::int64_t checked_out(std::int64_t in, std::int64_t kernel, std::int64_t stride,
                         std::int64_t padding, std::int64_t output_padding, std::int64_t dilation) {
  std::int64_t steps = 0, reach = 0, crop = 0, sum = 0;
  const bool overflow = __builtin_mul_overflow(in - 1, stride, &steps) ||
                        __builtin_mul_overflow(dilation, kernel - 1, &reach) ||
                        __builtin_mul_overflow(padding, std::int64_t{2}, &crop) ||
                        __builtin_add_overflow(steps, reach, &sum) ||
                        __builtin_sub_overflow(sum, crop, &sum) ||
                        __builtin_add_overflow(sum, output_padding, &sum) ||
                        __builtin_add_overflow(sum, std::int64_t{1}, &sum);
  CONVT_EXPECT(!overflow, "the output size overflows 64 bits (input ", in, ", kernel ", kernel,
               ", stride ", stride, ", padding ", padding, ", dilation ", dilation, ")");
  return sum;
}

bool product_overflows(std::initializer_list<std::int64_t> factors) {
  // Bytes have to fit as well, hence the start at the largest element size.
  std::int64_t product = 8;
  for (const std::int64_t factor : factors)
    if (__builtin_mul_overflow(product, factor, &product)) return true;
  return false;
}

// at::TensorBase::suggest_memory_format() == ChannelsLast, which is decided by strides alone.
bool suggests_channels_last(const TensorDesc& tensor) {
  if (tensor.ndim != 4 || tensor.strides[1] == 0) return false;
  std::int64_t least = 0;
  for (const int dim : {1, 3, 2, 0}) {
    if (tensor.sizes[dim] == 0 || tensor.strides[dim] < least) return false;
    if (dim == 0 && least == tensor.strides[1]) return false;  // ambiguous: contiguous
    least = tensor.strides[dim];
    if (tensor.sizes[dim] > 1) least *= tensor.sizes[dim];
  }
  return true;
}

}  // namespace

const char* name(DType dtype) noexcept {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f16:
      return "f16";
    case DType::bf16:
      return "bf16";
    case DType::other:
      return "other";
  }
  return "?";
}

const char* name(Layout layout) noexcept { return layout == Layout::nchw ? "nchw" : "nhwc"; }

const char* name(Precision precision) noexcept {
  switch (precision) {
    case Precision::fp32:
      return "fp32";
    case Precision::tf32:
      return "tf32";
    case Precision::fp16:
      return "fp16";
  }
  return "?";
}

Pair Problem::out() const noexcept {
  const Geometry& g = geometry;
  return {(in.h - 1) * g.stride.h - 2 * g.padding.h + g.dilation.h * (kernel.h - 1) +
              g.output_padding.h + 1,
          (in.w - 1) * g.stride.w - 2 * g.padding.w + g.dilation.w * (kernel.w - 1) +
              g.output_padding.w + 1};
}

std::int64_t Problem::output_numel() const noexcept {
  const Pair size = out();
  return batch * out_channels * size.h * size.w;
}

std::int64_t Problem::min_bytes() const noexcept {
  const std::int64_t element = dtype == DType::f32 ? 4 : 2;
  const std::int64_t bias_numel = bias ? out_channels : 0;
  return element * (input_numel() + weight_numel() + bias_numel + output_numel());
}

double Problem::flops() const noexcept {
  return 2.0 * static_cast<double>(input_numel()) * static_cast<double>(group_out()) *
         static_cast<double>(kernel.h * kernel.w);
}

Precision Problem::needed_precision() const noexcept {
  if (dtype != DType::f32 || precision != Precision::tf32) return precision;
  // GPUs make 25 to 50 flops of fp32's products while they move a byte; kernels reach half of that.
  constexpr double kMemoryBound = 16;
  constexpr std::int64_t kFewOutputs = 3;
  const bool depthwise = geometry.groups > 1 && group_in() == 1;
  const bool memory_bound = flops() <= kMemoryBound * static_cast<double>(min_bytes());
  return depthwise || out_channels <= kFewOutputs || memory_bound ? Precision::fp32 : precision;
}

void Problem::validate() const {
  const Geometry& g = geometry;
  CONVT_EXPECT(g.stride.h > 0 && g.stride.w > 0, "expected stride to be positive, got ", g.stride);
  CONVT_EXPECT(g.padding.h >= 0 && g.padding.w >= 0, "expected padding to be non-negative, got ",
               g.padding);
  CONVT_EXPECT(g.dilation.h > 0 && g.dilation.w > 0, "expected dilation to be positive, got ",
               g.dilation);
  CONVT_EXPECT(g.output_padding.h >= 0 && g.output_padding.w >= 0,
               "expected output_padding to be non-negative, got ", g.output_padding);
  CONVT_EXPECT(g.groups > 0, "expected groups to be positive, got ", g.groups);
  CONVT_EXPECT(batch >= 0, "expected the batch size to be non-negative, got ", batch);
  CONVT_EXPECT(in.h > 0 && in.w > 0, "expected input height and width to be positive, got ", in);
  CONVT_EXPECT(kernel.h > 0 && kernel.w > 0, "expected kernel_size to be positive, got ", kernel);
  CONVT_EXPECT(in_channels > 0 && out_channels > 0, "expected at least one channel, got ",
               in_channels, " in and ", out_channels, " out");
  CONVT_EXPECT(in_channels % g.groups == 0,
               "expected input channels to be divisible by groups=", g.groups, ", got ",
               in_channels);
  CONVT_EXPECT(out_channels % g.groups == 0,
               "expected output channels to be divisible by groups=", g.groups, ", got ",
               out_channels);
  CONVT_EXPECT((g.output_padding.h < g.stride.h || g.output_padding.h < g.dilation.h) &&
                   (g.output_padding.w < g.stride.w || g.output_padding.w < g.dilation.w),
               "expected output_padding to be smaller than stride or dilation, got output_padding=",
               g.output_padding, ", stride=", g.stride, ", dilation=", g.dilation);
  const Pair size{
      checked_out(in.h, kernel.h, g.stride.h, g.padding.h, g.output_padding.h, g.dilation.h),
      checked_out(in.w, kernel.w, g.stride.w, g.padding.w, g.output_padding.w, g.dilation.w)};
  CONVT_EXPECT(size.h > 0 && size.w > 0, "expected a positive output size, got ", size,
               " from input ", in, ", kernel_size ", kernel, ", stride ", g.stride, ", padding ",
               g.padding, ", output_padding ", g.output_padding, ", dilation ", g.dilation);
  CONVT_EXPECT(!product_overflows({batch, in_channels, in.h, in.w}) &&
                   !product_overflows({in_channels, group_out(), kernel.h, kernel.w}) &&
                   !product_overflows({batch, out_channels, size.h, size.w}),
               "a tensor of this problem would have more than 2^63 bytes: ", str());
}

std::string Problem::str() const {
  const Pair size = out();
  const std::string products =
      dtype == DType::f32 ? text(" (", name(precision), " products)") : std::string();
  return text("conv_transpose2d ", name(dtype), products, " ", name(layout), " [", batch, ", ",
              in_channels, ", ", in.h, ", ", in.w, "] -> [", batch, ", ", out_channels, ", ",
              size.h, ", ", size.w, "], kernel ", kernel, ", stride ", geometry.stride,
              ", padding ", geometry.padding, ", output_padding ", geometry.output_padding,
              ", dilation ", geometry.dilation, ", groups ", geometry.groups,
              bias ? ", bias" : ", no bias");
}

Problem Problem::of(const TensorDesc& input, const TensorDesc& weight, const TensorDesc* bias,
                    const Geometry& geometry, Precision precision) {
  CONVT_EXPECT(input.ndim == 4, "expected input to have 4 dimensions [N, C, H, W], got ",
               sizes(input));
  CONVT_EXPECT(
      weight.ndim == 4,
      "expected weight to have 4 dimensions [in_channels, out_channels / groups, kH, kW], got ",
      sizes(weight));
  CONVT_EXPECT(input.dtype == weight.dtype,
               "expected input and weight to have the same dtype, got ", name(input.dtype), " and ",
               name(weight.dtype));
  CONVT_EXPECT(geometry.groups > 0, "expected groups to be positive, got ", geometry.groups);
  CONVT_EXPECT(input.sizes[1] == weight.sizes[0], "expected input to have ", weight.sizes[0],
               " channels for weight of size ", sizes(weight), ", got input of size ",
               sizes(input));
  std::int64_t out_channels = 0;
  CONVT_EXPECT(!__builtin_mul_overflow(weight.sizes[1], geometry.groups, &out_channels),
               "the number of output channels overflows 64 bits: weight ", sizes(weight),
               ", groups ", geometry.groups);
  CONVT_EXPECT(weight.sizes[0] % geometry.groups == 0,
               "expected input channels to be divisible by groups=", geometry.groups, ", got ",
               weight.sizes[0]);
  if (bias) {
    CONVT_EXPECT(bias->ndim == 1 && bias->sizes[0] == out_channels,
                 "expected bias to be 1-dimensional with ", out_channels, " elements, got size ",
                 sizes(*bias));
    CONVT_EXPECT(bias->dtype == input.dtype, "expected input and bias to have the same dtype, got ",
                 name(input.dtype), " and ", name(bias->dtype));
  }

  Problem problem;
  problem.batch = input.sizes[0];
  problem.in_channels = input.sizes[1];
  problem.out_channels = out_channels;
  problem.in = {input.sizes[2], input.sizes[3]};
  problem.kernel = {weight.sizes[2], weight.sizes[3]};
  problem.geometry = geometry;
  problem.dtype = input.dtype;
  const bool channels_last = suggests_channels_last(input) || suggests_channels_last(weight);
  problem.layout = channels_last ? Layout::nhwc : Layout::nchw;
  problem.precision = precision;
  problem.bias = bias != nullptr;
  problem.aligned = input.aligned;
  problem.validate();
  return problem;
}

}  // namespace convt
