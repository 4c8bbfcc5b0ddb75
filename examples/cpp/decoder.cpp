// The headline layer and a small decoder through libtorch, checked against ATen.
#include <torch/torch.h>

#include <chrono>
#include <convt/torch.hpp>
#include <iostream>
#include <vector>

namespace {

struct Layer {
  at::Tensor weight;
  at::Tensor bias;
  convt::Geometry geometry;
};

at::Tensor ours(const Layer& layer, const at::Tensor& x) {
  return convt::conv_transpose2d(x, layer.weight, layer.bias, layer.geometry);
}

at::Tensor torchs(const Layer& layer, const at::Tensor& x) {
  const convt::Geometry& g = layer.geometry;
  return at::conv_transpose2d(x, layer.weight, layer.bias, {g.stride.h, g.stride.w},
                              {g.padding.h, g.padding.w}, {g.output_padding.h, g.output_padding.w},
                              g.groups, {g.dilation.h, g.dilation.w});
}

template <class Forward>
at::Tensor run(const std::vector<Layer>& layers, at::Tensor x, const Forward& forward) {
  for (const Layer& layer : layers) x = at::relu(forward(layer, x));
  return x;
}

// Median of a few calls, in milliseconds.
template <class Call>
double time_ms(const Call& call, bool cuda) {
  std::vector<double> times;
  for (int i = 0; i < 7; ++i) {
    if (cuda) torch::cuda::synchronize();
    const auto begin = std::chrono::steady_clock::now();
    call();
    if (cuda) torch::cuda::synchronize();
    const std::chrono::duration<double, std::milli> passed =
        std::chrono::steady_clock::now() - begin;
    times.push_back(passed.count());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

bool check(const char* name, const std::vector<Layer>& layers, const at::Tensor& x) {
  const at::Tensor y = run(layers, x, ours), expected = run(layers, x, torchs);
  const double error = ((y - expected).norm() / expected.norm()).item<double>();
  std::cout << name << " on " << x.device() << ": " << y.sizes() << ", convt "
            << time_ms([&] { run(layers, x, ours); }, x.is_cuda()) << " ms, ATen "
            << time_ms([&] { run(layers, x, torchs); }, x.is_cuda()) << " ms, relative difference "
            << error << '\n';
  return error < 2e-3 && y.strides() == expected.strides();
}

// Torch's switch for convolutions decides, whatever the one for RNNs says.
bool follows_torchs_switch() {
  const auto set = [](at::Float32Precision precision) {
    at::globalContext().setFloat32Precision(at::Float32Backend::CUDA, at::Float32Op::CONV,
                                            precision);
    return convt::torch_precision();
  };
  return set(at::Float32Precision::IEEE) == convt::Precision::fp32 &&
         set(at::Float32Precision::TF32) == convt::Precision::tf32;
}

// The upsampling layer of 3-D U-Nets.
bool check_volume(const at::Tensor& x) {
  const convt::Geometry3d doubling{.stride = {2, 2, 2}};
  const at::Tensor weight = at::randn({x.size(1), 16, 2, 2, 2}, x.options()) / 8;
  const at::Tensor y = convt::conv_transpose3d(x, weight, std::nullopt, doubling);
  const at::Tensor expected = at::conv_transpose3d(x, weight, {}, /*stride=*/2);
  const double error = ((y - expected).norm() / expected.norm()).item<double>();
  std::cout << "volume on " << x.device() << ": " << y.sizes() << ", relative difference " << error
            << '\n';
  return error < 2e-3 && y.strides() == expected.strides();
}

}  // namespace

int main() {
  const at::InferenceMode guard;
  const at::Device device(torch::cuda::is_available() ? at::kCUDA : at::kCPU);
  const auto random = [&](at::IntArrayRef sizes) { return at::randn(sizes, device); };

  const std::vector<Layer> headline{
      {random({32, 64, 3, 3}),
       random({64}),
       {.stride = {5, 5}, .padding = {1, 1}, .output_padding = {}, .dilation = {2, 2}}}};
  const convt::Geometry doubling{.stride = {2, 2}, .padding = {1, 1}, .output_padding = {}};
  const std::vector<Layer> decoder{{random({64, 32, 4, 4}) / 16, random({32}), doubling},
                                   {random({32, 16, 4, 4}) / 11, random({16}), doubling},
                                   {random({16, 3, 4, 4}) / 8, random({3}), doubling}};
  const int64_t batch = device.is_cuda() ? 16 : 1;
  const bool right = follows_torchs_switch() &&
                     check("headline", headline, random({batch, 32, 64, 128})) &&
                     check("decoder", decoder, random({batch, 64, 16, 16})) &&
                     check_volume(random({batch, 64, 8, 8, 8}));
  std::cout << (right ? "all right\n" : "WRONG\n");
  return right ? 0 : 1;
}
