// Written by benchmarks/fit_aten.py from nvidia_h200.jsonl.
#pragma once

#include "dispatch/aten.hpp"

namespace convt {

// Weights of aten_features, by [16 bits][channels_last].
inline constexpr std::array<double, kAtenFeatures> kAtenFit[2][2] = {
    {{{2.352, 0.718, 0.134, 0.141, 0.004, 0.012, -0.034, 0.124, 0.190, 0.033, 0.045}},
     {{1.839, 0.706, 0.112, 0.045, 0.117, 0.014, -0.036, 0.175, 0.423, 0.285, 0.058}}},
    {{{2.633, 0.693, 0.126, 0.113, 0.149, -0.192, 0.062, 0.044, 0.377, 0.078, 0.100}},
     {{1.619, 0.824, 0.098, -0.163, 0.216, -0.308, 0.089, 0.096, 0.682, 0.089, 0.093}}}};

}  // namespace convt
