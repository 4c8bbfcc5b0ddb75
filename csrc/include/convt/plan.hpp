// plan(problem, target): which precompiled kernel answers a problem. Pure: no CUDA call, no
// environment, no state.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "convt/export.hpp"
#include "convt/problem.hpp"
#include "convt/registry.hpp"

namespace convt {

struct Grid {
  std::uint32_t x = 0;
  std::uint32_t y = 1;
  std::uint32_t z = 1;
};

// A kernel image to plan for: `arch` as in sm_89, and whether the driver must compile its PTX.
struct Target {
  int arch = 0;
  ImageKind kind = ImageKind::cubin;
};

// Values of every integer kernel parameter, indexed by Param. A kernel takes those it declares.
using Arguments = std::array<std::int64_t, kParamCount>;

struct Plan {
  Problem problem;
  Target target;
  const Variant* variant = nullptr;  // null: ATen answers
  const char* reason = "";           // why this variant, or why ATen; a literal
  Grid grid;
  // Programs that run at once on the smallest common GPU of the architecture.
  std::int64_t resident = 0;
  Arguments arguments{};

  CONVT_EXPORT std::string str() const;
};

// Why no kernel of `family` serves `problem`, as a literal; null when one does.
CONVT_EXPORT const char* unsupported(Family family, const Problem& problem) noexcept;

// The best variant for `problem` on `target`; never throws for a valid problem.
CONVT_EXPORT Plan plan(const Problem& problem, const Target& target);

// How `weight` is packed: copied from Pointers::x to y, in channels_last memory. Its problem is a
// layer with that weight. No variant: a kernel for it is missing, let torch copy it.
CONVT_EXPORT Plan plan_pack(const TensorDesc& weight, const Target& target);

}  // namespace convt
