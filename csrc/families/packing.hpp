// Packing of the weight, an ordinary step of plans whose kernels read it packed.
#pragma once

#include <optional>

#include "convt/gpu.hpp"
#include "convt/problem.hpp"
#include "convt/step.hpp"

namespace convt {

// Copies the problem's weight, which lies anyhow, to `packed`; nothing where no kernel can.
std::optional<Step> packing(const Problem& problem, const Gpu& gpu, const Buffer& packed);

double packing_us(const Problem& problem, const Gpu& gpu) noexcept;

}  // namespace convt
