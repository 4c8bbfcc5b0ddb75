// What a record times, as the models see it.
#pragma once

#include "convt/config.hpp"
#include "convt/gpu.hpp"
#include "convt/problem.hpp"

namespace convt {

// What of a record's time is packing of the weight.
double recorded_packing_us(const Config& config, const Problem& problem, const Gpu& gpu) noexcept;

// The modelled time of what a record times, with that packing; ATen's for the config of ATen.
double modelled_us(const Config& config, const Problem& problem, const Gpu& gpu);

}  // namespace convt
