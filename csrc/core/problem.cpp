#include "convt/problem.hpp"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <numeric>
#include <span>

#include "core/text.hpp"

namespace convt {
namespace {

// Sizes as torch prints them.
std::string sizes(const TensorDesc& tensor) {
  std::string out = "[";
  for (std::int64_t i = 0; i < tensor.ndim; ++i) append(out, text(i ? ", " : "", tensor.sizes[i]));
  return out + "]";
}

template <class... Parts>
[[noreturn]] void fail(int dims, const Parts&... parts) {
  throw InvalidArgument(text("conv_transpose", dims, "d: ", parts...));
}

// A macro, so that a text is only put together for a problem that has one. `dims` is in scope.
#define CONVT_EXPECT(holds, ...) \
  do {                           \
    if (!(holds)) [[unlikely]]   \
      fail(dims, __VA_ARGS__);   \
  } while (false)

// Axis::out(), or a throw.
std::int64_t checked_out(const Axis& axis, int dims) {
  const auto [in, kernel, stride, padding, output_padding, dilation] = axis;
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

// at::TensorBase::suggest_memory_format() == ChannelsLast or ChannelsLast3d, which is decided by
// strides alone.
bool suggests_channels_last(const TensorDesc& tensor) {
  if (tensor.ndim < 4 || tensor.ndim > 5 || tensor.strides[1] == 0) return false;
  std::int64_t least = 0;
  constexpr std::array<int, 4> flat{1, 3, 2, 0};
  constexpr std::array<int, 5> deep{1, 4, 3, 2, 0};
  for (const int dim : tensor.ndim == 4 ? std::span<const int>(flat) : std::span<const int>(deep)) {
    if (tensor.sizes[dim] == 0 || tensor.strides[dim] < least) return false;
    if (dim == 0 && least == tensor.strides[1]) return false;  // ambiguous: contiguous
    least = tensor.strides[dim];
    if (tensor.sizes[dim] > 1) least *= tensor.sizes[dim];
  }
  return true;
}

// The axes that the caller gave: "(3, 3)", of one to three numbers.
std::string of_axes(const Problem& problem, std::int64_t Axis::* number) {
  const std::array<const Axis*, 3> axes{&problem.d, &problem.h, &problem.w};
  std::string out = "(";
  for (int axis = 3 - problem.dims; axis < 3; ++axis)
    append(out, text(axis > 3 - problem.dims ? ", " : "",
                     axes[static_cast<std::size_t>(axis)]->*number));
  return out + ")";
}

std::string out_sizes(const Problem& problem) {
  const std::array<const Axis*, 3> axes{&problem.d, &problem.h, &problem.w};
  std::string out;
  for (int axis = 3 - problem.dims; axis < 3; ++axis)
    append(out, text(", ", axes[static_cast<std::size_t>(axis)]->out()));
  return out;
}

std::string in_sizes(const Problem& problem) {
  const std::array<const Axis*, 3> axes{&problem.d, &problem.h, &problem.w};
  std::string out;
  for (int axis = 3 - problem.dims; axis < 3; ++axis)
    append(out, text(", ", axes[static_cast<std::size_t>(axis)]->in));
  return out;
}

// a^-1 modulo m for coprime a and m, by Euclid's algorithm; 0 when m is 1.
std::int64_t inverse_modulo(std::int64_t a, std::int64_t m) noexcept {
  std::int64_t r0 = m, r1 = a % m, t0 = 0, t1 = 1;
  while (r1 > 1) {
    const std::int64_t q = r0 / r1;
    const std::int64_t r2 = r0 - q * r1, t2 = t0 - q * t1;
    r0 = r1, r1 = r2, t0 = t1, t1 = t2;
  }
  if (m == 1) return 0;
  return t1 < 0 ? t1 + m : t1;
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

const char* name(Math math) noexcept {
  switch (math) {
    case Math::fp32:
      return "fp32";
    case Math::tf32:
      return "tf32";
    case Math::fp16:
      return "fp16";
    case Math::f16:
      return "f16";
    case Math::bf16:
      return "bf16";
    case Math::other:
      return "other";
  }
  return "?";
}

Math math_of(DType dtype, Precision precision) noexcept {
  switch (dtype) {
    case DType::f32:
      return precision == Precision::fp32   ? Math::fp32
             : precision == Precision::tf32 ? Math::tf32
                                            : Math::fp16;
    case DType::f16:
      return Math::f16;
    case DType::bf16:
      return Math::bf16;
    case DType::other:
      return Math::other;
  }
  return Math::other;
}

DType dtype_of(Math math) noexcept {
  switch (math) {
    case Math::f16:
      return DType::f16;
    case Math::bf16:
      return DType::bf16;
    case Math::other:
      return DType::other;
    default:
      return DType::f32;
  }
}

Precision precision_of(Math math) noexcept {
  return math == Math::fp32   ? Precision::fp32
         : math == Math::tf32 ? Precision::tf32
                              : Precision::fp16;
}

Phases Axis::phases() const noexcept {
  const std::int64_t gcd = std::gcd(stride, dilation);
  const std::int64_t period = stride / gcd, shift = dilation / gcd;
  return {gcd, period, inverse_modulo(shift, period), shift, (out() + stride - 1) / stride};
}

std::int64_t Problem::min_bytes() const noexcept {
  const std::int64_t bias_numel = bias ? out_channels : 0;
  return element_bytes() * (input_numel() + weight_numel() + bias_numel + output_numel());
}

double Problem::flops() const noexcept {
  return 2.0 * static_cast<double>(input_numel()) * static_cast<double>(group_out()) *
         static_cast<double>(taps());
}

Math Problem::needed_math() const noexcept {
  if (math != Math::tf32) return math;
  // GPUs make 25 to 50 flops of fp32's products while they move a byte; kernels reach half of that.
  constexpr double kMemoryBound = 16;
  const bool memory_bound = flops() <= kMemoryBound * static_cast<double>(min_bytes());
  // Where cuDNN 9.19 makes fp32's products on an H200 although it may make TF32's; seen on 562 of
  // 1,406 layers of 16 to 1,024 input channels. Contiguous tensors cost it two changes of layout
  // besides, which the products of small problems are not worth.
  const bool contiguous = layout == Layout::nchw;
  const bool one_tap = d.has_one_tap() && h.has_one_tap() && w.has_one_tap();
  const bool few_outputs =
      out_channels <= (contiguous ? 8 : 3) || (!contiguous && one_tap && out_channels < 32);
  const bool small_groups = groups > 1 && std::max(group_in(), group_out()) <= 16;
  const bool small = flops() <= (contiguous ? 0x1p28 : 0x1p22);
  return memory_bound || few_outputs || small_groups || small ? Math::fp32 : math;
}

bool Problem::weight_is_packed() const noexcept {
  const std::array<std::int64_t, 5> sizes{in_channels, group_out(), d.kernel, h.kernel, w.kernel};
  const std::array<std::int64_t, 5> packed = with_packed_weight().weight;
  for (std::size_t dim = 0; dim < 5; ++dim)
    if (sizes[dim] != 1 && weight[dim] != packed[dim]) return false;
  return weight_aligned;
}

Problem Problem::with_packed_weight() const noexcept {
  Problem problem = *this;
  const std::int64_t out = group_out();
  problem.weight = {taps() * out, 1, h.kernel * w.kernel * out, w.kernel * out, out};
  problem.weight_aligned = true;
  return problem;
}

Problem Problem::with_weight(const TensorDesc& tensor) const {
  CONVT_EXPECT(tensor.ndim == dims + 2, "expected weight to have ", dims + 2, " dimensions, got ",
               sizes(tensor));
  Problem problem = *this;
  problem.weight = {tensor.strides[0], tensor.strides[1], 0, 0, 0};
  std::copy_n(tensor.strides + 2, dims, problem.weight.end() - dims);
  problem.weight_aligned = tensor.aligned;
  return problem;
}

void Problem::validate() const {
  const auto all = [&](auto&& holds) { return holds(d) && holds(h) && holds(w); };
  const auto of = [&](std::int64_t Axis::* number) { return of_axes(*this, number); };
  CONVT_EXPECT(all([](const Axis& a) { return a.stride > 0; }),
               "expected stride to be positive, got ", of(&Axis::stride));
  CONVT_EXPECT(all([](const Axis& a) { return a.padding >= 0; }),
               "expected padding to be non-negative, got ", of(&Axis::padding));
  CONVT_EXPECT(all([](const Axis& a) { return a.dilation > 0; }),
               "expected dilation to be positive, got ", of(&Axis::dilation));
  CONVT_EXPECT(all([](const Axis& a) { return a.output_padding >= 0; }),
               "expected output_padding to be non-negative, got ", of(&Axis::output_padding));
  CONVT_EXPECT(groups > 0, "expected groups to be positive, got ", groups);
  CONVT_EXPECT(batch >= 0, "expected the batch size to be non-negative, got ", batch);
  CONVT_EXPECT(all([](const Axis& a) { return a.in > 0; }), "expected input ",
               dims == 2 ? "height and width" : "sizes", " to be positive, got ", of(&Axis::in));
  CONVT_EXPECT(all([](const Axis& a) { return a.kernel > 0; }),
               "expected kernel_size to be positive, got ", of(&Axis::kernel));
  CONVT_EXPECT(in_channels > 0 && out_channels > 0, "expected at least one channel, got ",
               in_channels, " in and ", out_channels, " out");
  CONVT_EXPECT(in_channels % groups == 0,
               "expected input channels to be divisible by groups=", groups, ", got ", in_channels);
  CONVT_EXPECT(out_channels % groups == 0,
               "expected output channels to be divisible by groups=", groups, ", got ",
               out_channels);
  CONVT_EXPECT(all([](const Axis& a) {
                 return a.output_padding < a.stride || a.output_padding < a.dilation;
               }),
               "expected output_padding to be smaller than stride or dilation, got output_padding=",
               of(&Axis::output_padding), ", stride=", of(&Axis::stride),
               ", dilation=", of(&Axis::dilation));
  const std::array<std::int64_t, 3> out{checked_out(d, dims), checked_out(h, dims),
                                        checked_out(w, dims)};
  const std::string got =
      dims == 2 ? text(Pair{out[1], out[2]}) : "[" + out_sizes(*this).erase(0, 2) + "]";
  CONVT_EXPECT(out[0] > 0 && out[1] > 0 && out[2] > 0, "expected a positive output size, got ", got,
               " from input ", of(&Axis::in), ", kernel_size ", of(&Axis::kernel), ", stride ",
               of(&Axis::stride), ", padding ", of(&Axis::padding), ", output_padding ",
               of(&Axis::output_padding), ", dilation ", of(&Axis::dilation));
  CONVT_EXPECT(!product_overflows({batch, in_channels, d.in, h.in, w.in}) &&
                   !product_overflows({in_channels, group_out(), d.kernel, h.kernel, w.kernel}) &&
                   !product_overflows({batch, out_channels, out[0], out[1], out[2]}),
               "a tensor of this problem would have more than 2^63 bytes: ", str());
}

std::string Problem::str() const {
  const DType type = dtype();
  const std::string products =
      type == DType::f32 ? text(" (", name(precision()), " products)") : std::string();
  const auto of = [&](std::int64_t Axis::* number) { return of_axes(*this, number); };
  return text("conv_transpose", dims, "d ", name(type), products, " ", name(layout), " [", batch,
              ", ", in_channels, in_sizes(*this), "] -> [", batch, ", ", out_channels,
              out_sizes(*this), "], kernel ", of(&Axis::kernel), ", stride ", of(&Axis::stride),
              ", padding ", of(&Axis::padding), ", output_padding ", of(&Axis::output_padding),
              ", dilation ", of(&Axis::dilation), ", groups ", groups,
              bias ? ", bias" : ", no bias");
}

Settings::Settings(const Geometry& g) noexcept : groups(g.groups) {
  const auto axis = [&](std::int64_t Pair::* side) {
    return Axis{.stride = g.stride.*side,
                .padding = g.padding.*side,
                .output_padding = g.output_padding.*side,
                .dilation = g.dilation.*side};
  };
  axes = {Axis{}, axis(&Pair::h), axis(&Pair::w)};
}

Settings::Settings(const Geometry3d& g) noexcept : dims(3), groups(g.groups) {
  const auto axis = [&](std::int64_t Triple::* side) {
    return Axis{.stride = g.stride.*side,
                .padding = g.padding.*side,
                .output_padding = g.output_padding.*side,
                .dilation = g.dilation.*side};
  };
  axes = {axis(&Triple::d), axis(&Triple::h), axis(&Triple::w)};
}

Settings::Settings(int of_dims, std::span<const std::int64_t> list) : dims(of_dims) {
  const auto count = static_cast<std::size_t>(dims);
  CONVT_EXPECT(list.size() == 4 * count + 1, "expected geometry to have ", 4 * count + 1,
               " elements (stride, padding, output_padding, dilation, groups), got ", list.size());
  for (std::size_t i = 0; i < count; ++i)
    axes[i + 3 - count] = {.stride = list[i],
                           .padding = list[count + i],
                           .output_padding = list[2 * count + i],
                           .dilation = list[3 * count + i]};
  groups = list.back();
}

Problem Problem::of(const TensorDesc& input, const TensorDesc& weight, const TensorDesc* bias,
                    const Settings& settings, Precision precision) {
  const auto& [dims, axes, groups] = settings;
  constexpr std::array<const char*, 3> axes_of_input{"W", "H, W", "D, H, W"};
  constexpr std::array<const char*, 3> axes_of_weight{"kW", "kH, kW", "kD, kH, kW"};
  const auto named = static_cast<std::size_t>(dims - 1);
  CONVT_EXPECT(input.ndim == dims + 2, "expected input to have ", dims + 2, " dimensions [N, C, ",
               axes_of_input[named], "], got ", sizes(input));
  CONVT_EXPECT(weight.ndim == dims + 2, "expected weight to have ", dims + 2,
               " dimensions [in_channels, out_channels / groups, ", axes_of_weight[named],
               "], got ", sizes(weight));
  CONVT_EXPECT(input.dtype == weight.dtype,
               "expected input and weight to have the same dtype, got ", name(input.dtype), " and ",
               name(weight.dtype));
  CONVT_EXPECT(groups > 0, "expected groups to be positive, got ", groups);
  CONVT_EXPECT(input.sizes[1] == weight.sizes[0], "expected input to have ", weight.sizes[0],
               " channels for weight of size ", sizes(weight), ", got input of size ",
               sizes(input));
  std::int64_t out_channels = 0;
  CONVT_EXPECT(!__builtin_mul_overflow(weight.sizes[1], groups, &out_channels),
               "the number of output channels overflows 64 bits: weight ", sizes(weight),
               ", groups ", groups);
  CONVT_EXPECT(weight.sizes[0] % groups == 0,
               "expected input channels to be divisible by groups=", groups, ", got ",
               weight.sizes[0]);
  if (bias) {
    CONVT_EXPECT(bias->ndim == 1 && bias->sizes[0] == out_channels,
                 "expected bias to be 1-dimensional with ", out_channels, " elements, got size ",
                 sizes(*bias));
    CONVT_EXPECT(bias->dtype == input.dtype, "expected input and bias to have the same dtype, got ",
                 name(input.dtype), " and ", name(bias->dtype));
  }

  Problem problem;
  problem.dims = dims;
  problem.batch = input.sizes[0];
  problem.in_channels = input.sizes[1];
  problem.out_channels = out_channels;
  problem.groups = groups;
  const std::array<Axis*, 3> own{&problem.d, &problem.h, &problem.w};
  for (std::size_t i = 3 - static_cast<std::size_t>(dims), dim = 2; i < 3; ++i, ++dim) {
    *own[i] = axes[i];
    own[i]->in = input.sizes[dim];
    own[i]->kernel = weight.sizes[dim];
  }
  problem.math = math_of(input.dtype, precision);
  const bool channels_last = suggests_channels_last(input) || suggests_channels_last(weight);
  problem.layout = channels_last ? Layout::nhwc : Layout::nchw;
  problem.bias = bias != nullptr;
  problem.aligned = input.aligned;
  problem.validate();
  return problem.with_weight(weight);
}

}  // namespace convt
