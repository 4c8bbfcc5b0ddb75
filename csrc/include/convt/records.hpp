// Measured times, which the choice of a config trusts before any model.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "convt/config.hpp"
#include "convt/export.hpp"
#include "convt/gpu.hpp"
#include "convt/problem.hpp"

namespace convt {

// The time of a config on a problem, and ATen's on the same problem in the same run. The weight is
// in the memory order of the problem's layout: packing it, where the config needs that, is
// included.
struct Record {
  Problem problem;
  std::string config;  // as Config prints
  double microseconds = 0;
  double aten_microseconds = 0;
};

// The measured times of one GPU model.
struct Table {
  std::string device;  // as the driver names it
  int arch = 0;        // of the kernels: 90 for sm_90
  std::string proxy;   // how another GPU stood in for `device`; empty if `device` itself ran
  std::string source;  // the file; empty for a table that was compiled in
  std::vector<Record> records;
};

// A config's measured time on a problem. Corrections are logarithms of measured over modelled time.
struct Timed {
  Config config;
  double ratio = 0;         // over ATen's
  float beside_family = 0;  // its correction less the mean one of its family on this problem
};

// All that was measured of one problem.
struct Measured {
  Problem problem;
  double aten_microseconds = 0;
  std::vector<Timed> configs;  // those that this library has, by ascending ratio
  float aten_correction = 0;
  std::vector<std::pair<std::string_view, float>> family_corrections;  // the mean over its configs
};

struct Neighbour {
  const Measured* measured = nullptr;  // null: none
  double distance = std::numeric_limits<double>::infinity();
};

// An index over records. A value, which never changes; copies share it.
class CONVT_EXPORT Records {
 public:
  static constexpr std::size_t kNeighbours = 16;

  Records();
  // Indexes times that were measured on `gpu`. Where several records have the same problem and
  // config, the first counts.
  Records(const Gpu& gpu, std::span<const Record* const> records);

  // The number of problems that were measured.
  std::size_t size() const noexcept;
  // The record of a problem, whatever its bias and the alignment of its tensors; null where it was
  // not measured.
  const Measured* exact(const Problem& problem) const noexcept;
  // The nearest problems of the same math, layout and kind, nearest first. Factors of two in a
  // group's input channels, output channels, in taps or phases are a distance of one, each; in the
  // number of pixels or groups, a half.
  std::array<Neighbour, kNeighbours> nearest(const Problem& problem) const noexcept;

 private:
  struct Index;
  std::shared_ptr<const Index> index_;
};

// From now on every plan of this process takes notice of `table`, before the compiled-in ones.
CONVT_EXPORT void add_table(Table table);

// The tables that hold for `gpu`, most trusted first: those of its product, else those of other
// products that run the same images. A proxy does not hold beside a product's own table.
CONVT_EXPORT std::vector<const Table*> tables_for(const Gpu& gpu);

// An index over tables_for(gpu), made once and kept for the life of the process.
CONVT_EXPORT const Records& records_for(const Gpu& gpu);

// A number that every add_table changes: plans made before it may be out of date.
CONVT_EXPORT std::uint64_t tables_generation() noexcept;

}  // namespace convt
