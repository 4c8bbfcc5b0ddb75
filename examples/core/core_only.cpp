// convt::core and the CUDA driver, without torch: plans a layer and, where there is a device, runs
// it and checks every value.
#include <dlfcn.h>

#include <cmath>
#include <convt/launch.hpp>
#include <convt/plan.hpp>
#include <iostream>
#include <random>
#include <stdexcept>
#include <vector>

namespace {

// A driver call by the name in libcuda, so that this builds without a CUDA toolkit. With one,
// include cuda.h and link CUDA::cuda_driver.
template <class... Arguments>
void cuda(const char* name, Arguments... arguments) {
  static void* library = dlopen("libcuda.so.1", RTLD_NOW);
  auto call = reinterpret_cast<int (*)(Arguments...)>(dlsym(library, name));
  const int error = call ? call(arguments...) : -1;
  if (error != 0) throw std::runtime_error(name + (" failed: " + std::to_string(error)));
}

// Values on the device, owned.
class Buffer {
 public:
  explicit Buffer(const std::vector<float>& values) : bytes_(values.size() * sizeof(float)) {
    cuda("cuMemAlloc_v2", &address_, bytes_);
    cuda("cuMemcpyHtoD_v2", address_, static_cast<const void*>(values.data()), bytes_);
  }
  ~Buffer() { cuda("cuMemFree_v2", address_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return reinterpret_cast<void*>(address_); }
  std::vector<float> read() const {
    std::vector<float> values(bytes_ / sizeof(float));
    cuda("cuMemcpyDtoH_v2", static_cast<void*>(values.data()), address_, bytes_);
    return values;
  }

 private:
  std::size_t bytes_;
  unsigned long long address_ = 0;
};

std::vector<float> random(std::int64_t count) {
  static std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

// The definition, in fp64: each input pixel adds the kernel, scaled, to the output.
std::vector<double> reference(const convt::Problem& p, const std::vector<float>& x,
                              const std::vector<float>& weight, const std::vector<float>& bias) {
  const auto [out_h, out_w] = p.out();
  std::vector<double> y(static_cast<std::size_t>(p.output_numel()));
  for (std::size_t i = 0; i < y.size(); ++i)
    y[i] = bias[i / static_cast<std::size_t>(out_h * out_w) %
                static_cast<std::size_t>(p.out_channels)];
  for (std::int64_t n = 0; n < p.batch; ++n)
    for (std::int64_t c = 0; c < p.in_channels; ++c)
      for (std::int64_t h = 0; h < p.h.in; ++h)
        for (std::int64_t w = 0; w < p.w.in; ++w)
          for (std::int64_t kh = 0; kh < p.h.kernel; ++kh)
            for (std::int64_t kw = 0; kw < p.w.kernel; ++kw)
              for (std::int64_t k = 0; k < p.out_channels; ++k) {
                const std::int64_t oh = h * p.h.stride - p.h.padding + kh * p.h.dilation;
                const std::int64_t ow = w * p.w.stride - p.w.padding + kw * p.w.dilation;
                if (oh < 0 || oh >= out_h || ow < 0 || ow >= out_w) continue;
                const std::int64_t from = ((n * p.in_channels + c) * p.h.in + h) * p.w.in + w;
                const std::int64_t to = ((n * p.out_channels + k) * out_h + oh) * out_w + ow;
                const std::int64_t tap =
                    ((c * p.h.kernel + kh) * p.w.kernel + kw) * p.out_channels + k;
                y[static_cast<std::size_t>(to)] += double{x[static_cast<std::size_t>(from)]} *
                                                   weight[static_cast<std::size_t>(tap)];
              }
  return y;
}

bool run(const convt::Plan& plan, int device) {
  const convt::Problem& problem = plan.problem;
  void* context = nullptr;
  cuda("cuInit", 0u);
  cuda("cuDevicePrimaryCtxRetain", &context, device);
  cuda("cuCtxSetCurrent", context);

  const std::vector<float> x = random(problem.input_numel());
  const std::vector<float> weight = random(problem.weight_numel());  // [in, kh, kw, out]
  const std::vector<float> bias = random(problem.out_channels);
  const Buffer x_there(x), weight_there(weight), bias_there(bias);
  const Buffer y_there(std::vector<float>(static_cast<std::size_t>(problem.output_numel())));
  CUstream_st* stream = nullptr;  // the default one
  convt::launch(plan,
                {.x = x_there.data(),
                 .weight = weight_there.data(),
                 .bias = bias_there.data(),
                 .y = y_there.data()},
                device, stream);
  const std::vector<float> y = y_there.read();  // waits for the stream

  const std::vector<double> expected = reference(problem, x, weight, bias);
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    difference += std::pow(y[i] - expected[i], 2);
    norm += std::pow(expected[i], 2);
  }
  const double error = std::sqrt(difference / norm);
  std::cout << "relative error " << error << (error < 1e-6 ? ": right\n" : ": WRONG\n");
  return error < 1e-6;
}

}  // namespace

int main() {
  convt::Problem problem;
  problem.batch = 2;
  problem.in_channels = 32;
  problem.out_channels = 16;
  problem.h = {.in = 9, .kernel = 3, .stride = 5, .padding = 1, .dilation = 2};
  problem.w = {.in = 12, .kernel = 3, .stride = 5, .padding = 1, .dilation = 2};
  problem.math = convt::Math::fp32;
  problem.bias = true;
  problem.validate();
  problem = problem.with_packed_weight();  // [in, kh, kw, out], as below

  if (convt::device_count() == 0) {
    const int arch = convt::architectures(convt::ImageKind::cubin).front();
    const convt::Gpu gpu = convt::Gpu::preset(std::to_string(arch)).value();
    std::cout << convt::plan(problem, gpu).str() << "\nno CUDA device: planned only\n";
    return 0;
  }
  const int device = 0;
  const convt::Plan plan = convt::plan(problem, convt::device_gpu(device));
  std::cout << plan.str() << '\n';
  if (!plan.served()) return 1;  // this build has no kernel for the device, as the plan says
  return run(plan, device) ? 0 : 1;
}
