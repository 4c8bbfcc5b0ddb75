// What torch's own answer takes, so that it competes with kernels.
#pragma once

#include <array>
#include <cstddef>

#include "convt/gpu.hpp"
#include "convt/problem.hpp"

namespace convt {

inline constexpr std::size_t kAtenFeatures = 11;
inline constexpr double kAtenLaunchUs = 4;  // the least that any call takes

// What the time depends on: its logarithm, without the launch, is a weighted sum of these.
CONVT_EXPORT std::array<double, kAtenFeatures> aten_features(const Problem& problem,
                                                             const Gpu& gpu) noexcept;

double aten_us(const Problem& problem, const Gpu& gpu) noexcept;

}  // namespace convt
