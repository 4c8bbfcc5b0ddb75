// Tables of records that are compiled in.
#pragma once

#include <cstdint>
#include <span>

#include "convt/problem.hpp"

namespace convt {

// A record as aot/tuned.py generates it. `axes`: d, h and w, with the fields of Axis in order.
struct CompiledRecord {
  Math math;
  Layout layout;
  std::int32_t batch, in_channels, out_channels, groups;
  bool bias;
  std::int32_t axes[3][6];
  const char* config;
  float microseconds, aten_microseconds;
};

struct CompiledTable {
  const char* device;
  int arch;
  const char* proxy;
  std::span<const CompiledRecord> records;
};

// Generated from aot/tuned/.
extern const std::span<const CompiledTable> kCompiledTables;

}  // namespace convt
