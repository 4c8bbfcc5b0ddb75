// Written by benchmarks/fit_aten.py from nvidia_h200.jsonl.
#pragma once

#include "dispatch/aten.hpp"

namespace convt {

// Weights of aten_features, by [16 bits][channels_last].
inline constexpr std::array<double, kAtenFeatures> kAtenFit[2][2] = {
    {{{2.430, 0.723, 0.119, 0.080, 0.003, 0.015, -0.017, 0.106, 0.307, 0.044, -0.050}},
     {{1.922, 0.765, 0.038, -0.005, 0.051, 0.028, -0.068, 0.206, 0.457, 0.215, -0.089}}},
    {{{2.676, 0.813, 0.056, -0.191, 0.113, 0.029, 0.055, 0.065, 0.176, 0.037, -0.072}},
     {{1.861, 0.898, 0.020, -0.296, -0.031, -0.103, -0.022, 0.184, 0.516, 0.046, -0.022}}}};

}  // namespace convt
