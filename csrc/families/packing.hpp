// Packing of the weight: a step of its own in plans whose kernels read the weight packed.
#pragma once

#include <optional>

#include "convt/gpu.hpp"
#include "convt/problem.hpp"
#include "convt/step.hpp"

namespace convt {

// The step that copies the problem's weight, of any strides, to `packed`; nothing where no kernel
// can.
std::optional<Step> packing(const Problem& problem, const Gpu& gpu, const Buffer& packed);

double packing_us(const Problem& problem, const Gpu& gpu) noexcept;

}  // namespace convt
