// A package of examples/export.py: `aoti decoder.pt2 decoder.pt` runs it without Python and
// compares with what Python got.
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: aoti PACKAGE.pt2 EXAMPLE.pt\n";
    return 2;
  }
  const at::InferenceMode guard;
  std::ifstream file(argv[2], std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  const auto example = torch::pickle_load(bytes).toTuple();
  const at::Tensor x = example->elements()[0].toTensor();
  const at::Tensor expected = example->elements()[1].toTensor();

  torch::inductor::AOTIModelPackageLoader model(argv[1]);
  const auto seconds = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
  at::Tensor y = model.run({x})[0];  // loads kernels
  const double begin = seconds();
  y = model.run({x})[0].cpu();  // waits for the device
  const double passed = seconds() - begin;

  const double error = ((y - expected.cpu()).norm() / expected.norm().cpu()).item<double>();
  std::cout << argv[1] << " on " << x.device() << ": " << y.sizes() << " in " << passed * 1e3
            << " ms, relative difference " << error << '\n';
  return error < 1e-6 ? 0 : 1;
}
