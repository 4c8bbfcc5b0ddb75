// Written by benchmarks/fit_aten.py from nvidia_h200.jsonl.
#pragma once

#include "dispatch/aten.hpp"

namespace convt {

// Weights of aten_features, by [16 bits][channels_last].
inline constexpr std::array<double, kAtenFeatures> kAtenFit[2][2] = {
    {{{2.306, 0.714, 0.146, 0.143, 0.022, 0.004, -0.057, 0.143, 0.167, 0.066, 0.048, 0.263, 0.576}},
     {{1.755, 0.719, 0.117, 0.048, 0.133, -0.000, -0.081, 0.212, 0.405, 0.307, 0.070, 0.092,
       0.803}}},
    {{{2.638, 0.690, 0.131, 0.205, 0.175, -0.258, 0.062, 0.040, 0.291, 0.043, 0.108, 0.250, 0.226}},
     {{1.614, 0.772, 0.139, 0.050, 0.262, -0.443, 0.097, 0.088, 0.589, 0.059, 0.086, 0.190,
       0.544}}}};

}  // namespace convt
