// What aot/embed.py generates.
#pragma once

#include <cstddef>
#include <span>

#include "convt/registry.hpp"

namespace convt {

extern const std::span<const Variant> kVariants;
extern const std::span<const int> kArchitectures[2];  // by ImageKind
extern const std::size_t kImageCount;

}  // namespace convt
