// The core alone, without torch: what would run on an RTX 4090, and what is at hand here.
#include <convt/launch.hpp>
#include <convt/plan.hpp>
#include <iostream>

int main() {
  convt::Problem problem;
  problem.batch = 16;
  problem.in_channels = 32;
  problem.out_channels = 64;
  problem.in = {64, 128};
  problem.kernel = {3, 3};
  problem.geometry = {
      .stride = {5, 5}, .padding = {1, 1}, .output_padding = {}, .dilation = {2, 2}};
  problem.validate();

  std::cout << convt::plan(problem, convt::select_target(89, 0, true)).str() << '\n';
  std::cout << convt::device_count() << " CUDA devices\n";

  problem.geometry.stride.h = 0;
  try {
    problem.validate();
  } catch (const convt::InvalidArgument& error) {
    std::cout << "as expected: " << error.what() << '\n';
    return 0;
  }
  return 1;
}
