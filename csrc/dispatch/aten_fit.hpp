// Written by benchmarks/fit_aten.py from nvidia_h200.jsonl.
#pragma once

#include "dispatch/aten.hpp"

namespace convt {

// Weights of aten_features, by [16 bits][channels_last].
inline constexpr std::array<double, kAtenFeatures> kAtenFit[2][2] = {
    {{{2.381, 0.702, 0.144, 0.151, 0.007, 0.009, -0.036, 0.120, 0.187, -0.035, 0.079}},
     {{1.872, 0.684, 0.126, 0.049, 0.121, 0.011, -0.049, 0.175, 0.430, 0.368, 0.067}}},
    {{{2.684, 0.646, 0.155, -0.037, 0.160, -0.103, 0.067, 0.028, 0.366, 0.000, 0.254}},
     {{1.681, 0.800, 0.114, -0.168, 0.224, -0.326, 0.081, 0.083, 0.676, 0.000, 0.303}}}};

}  // namespace convt
