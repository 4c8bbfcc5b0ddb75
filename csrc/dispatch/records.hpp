// Measured configs: what was the quickest for a problem on a GPU when it was timed.
#pragma once

#include <string>

#include "convt/config.hpp"
#include "convt/gpu.hpp"
#include "convt/problem.hpp"

namespace convt {

struct Record {
  Config config;
  double microseconds = 0;
  std::string source;  // which measurement, and how it matched, for explain()
};

// The record that suits best; null where there is none.
const Record* find_record(const Problem& problem, const Gpu& gpu);

}  // namespace convt
