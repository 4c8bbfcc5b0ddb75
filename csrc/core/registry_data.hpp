// The tables that aot/embed.py generates.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "convt/registry.hpp"

namespace convt {

struct Family;

struct NamedFamily {
  std::string_view name;
  const Family* rules;
};

extern const std::span<const Variant> kVariants;
extern const std::span<const NamedFamily> kFamilies;  // by name
extern const std::span<const int> kArchitectures[2];  // by ImageKind
extern const std::size_t kImageCount;

}  // namespace convt
