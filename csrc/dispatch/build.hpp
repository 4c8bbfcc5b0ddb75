// From a config to the steps that run.
#pragma once

#include "convt/plan.hpp"
#include "families/family.hpp"
#include "families/packing.hpp"

namespace convt {

// Whether the weight has to be packed before that variant can read it.
inline bool needs_packing(const Variant& variant, const Problem& problem) noexcept {
  return variant.weight == WeightOrder::channels_last && !problem.weight_is_packed();
}

// The plan of a candidate that serves the problem, with its family's reason.
Plan build(const Problem& problem, const Gpu& gpu, const Candidate& candidate);

}  // namespace convt
