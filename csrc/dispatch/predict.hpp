// The choice among the candidates for a problem by measured records.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "convt/records.hpp"

namespace convt {

struct Prediction {
  Candidate best;      // a kernel's config or ATen, with its measured or predicted microseconds
  std::string reason;  // which measurement, and how it matched
};

// The candidate to run by the records of the problem itself, else by those of the problems nearest
// to it; nothing where no problem is near. `candidates` may lack ATen, where it must not answer.
std::optional<Prediction> predict(const Problem& problem, const Gpu& gpu, const Records& records,
                                  std::span<const Candidate> candidates);

}  // namespace convt
