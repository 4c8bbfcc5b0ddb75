// The time of torch's own convolution, which competes with kernels.
#pragma once

#include <array>
#include <cstddef>

#include "convt/gpu.hpp"
#include "convt/problem.hpp"

namespace convt {

inline constexpr std::size_t kAtenFeatures = 13;
inline constexpr double kAtenLaunchUs = 4;  // the least that any call takes

// log(time without the launch) is a weighted sum of these numbers.
CONVT_EXPORT std::array<double, kAtenFeatures> aten_features(const Problem& problem,
                                                             const Gpu& gpu) noexcept;

double aten_us(const Problem& problem, const Gpu& gpu) noexcept;

}  // namespace convt
