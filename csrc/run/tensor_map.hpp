// TMA descriptors and addresses of a launch.
#pragma once

#include <cuda.h>

#include "convt/launch.hpp"
#include "run/driver.hpp"

namespace convt {

const void* address_of(const Buffer& buffer, const Pointers& pointers) noexcept;

// The descriptor of `map` at an address. Throws DriverError naming the plan.
CUtensorMap encode(const Driver& driver, const Plan& plan, const TensorMap& map,
                   const void* address);

}  // namespace convt
