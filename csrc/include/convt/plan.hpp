// plan(problem, gpu) chooses the config that answers a problem. It is pure: no CUDA call, no
// environment, no state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convt/config.hpp"
#include "convt/export.hpp"
#include "convt/gpu.hpp"
#include "convt/problem.hpp"
#include "convt/records.hpp"
#include "convt/step.hpp"

namespace convt {

struct Plan {
  Problem problem;
  Gpu gpu;
  Config config;            // ATen where there are no steps
  std::vector<Step> steps;  // launches, one after another in a stream
  std::int64_t workspace_bytes = 0;
  double microseconds = 0;      // modelled or measured
  std::string reason;           // why this config
  std::vector<Candidate> best;  // what was weighed, the first three

  bool served() const noexcept { return !steps.empty(); }
  // The step of `config`; the plan must be served.
  CONVT_EXPORT const Step& main() const noexcept;
  CONVT_EXPORT std::string str() const;
};

// Every config that serves `problem`, of all families and ATen, by ascending time.
CONVT_EXPORT std::vector<Candidate> candidates(const Problem& problem, const Gpu& gpu);

// The quickest config for `problem`: by the records of the problem itself, else by those of the
// nearest problems, else by the model. ATen answers where the choice stays unsure. Never throws for
// a valid problem.
CONVT_EXPORT Plan plan(const Problem& problem, const Gpu& gpu, const Records& records);

// The same by the tables of this process: plan(problem, gpu, records_for(gpu)).
CONVT_EXPORT Plan plan(const Problem& problem, const Gpu& gpu);

// The plan of that config. Throws InvalidArgument, saying why, where it does not serve the problem.
CONVT_EXPORT Plan plan_with(const Problem& problem, const Gpu& gpu, const Config& config);

// The plan of packing a weight from Pointers::weight to Pointers::y, into the order that
// Problem::weight_is_packed() tells. Not served where no kernel packs it: torch has to copy it.
CONVT_EXPORT Plan plan_pack(const TensorDesc& weight, const Gpu& gpu);

}  // namespace convt
