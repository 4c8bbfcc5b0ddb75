// What torch's own answer takes, so that it competes with kernels.
#pragma once

#include "convt/gpu.hpp"
#include "convt/problem.hpp"

namespace convt {

double aten_us(const Problem& problem, const Gpu& gpu) noexcept;

}  // namespace convt
