#include "dispatch/predict.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "core/text.hpp"
#include "dispatch/aten.hpp"
#include "dispatch/build.hpp"

namespace convt {
namespace {

// A problem that is farther away says nothing.
constexpr double kFar = 4.0;
// How much a predicted time may be wrong: a kernel answers if it is modelled to be quicker than
// ATen by this and, for each unit of distance, that. `python -m benchmarks.regret` tells what it
// costs.
constexpr double kDoubt = 0.15;
constexpr double kDoubtPerDistance = 0.2;
// What the model itself weighs among its corrections, which weigh 1 / (0.1 + distance).
constexpr double kModelWeight = 0.5;
constexpr double kLargestCorrection = 8;  // measured over modelled time, or its inverse

// The mean logarithm of measured over modelled times.
class Correction {
 public:
  void add(double measured, double modelled, double distance) {
    if (!std::isfinite(modelled)) return;
    const double limit = std::log(kLargestCorrection);
    const double weight = 1 / (0.1 + distance);
    sum_ += weight * std::clamp(std::log(measured / modelled), -limit, limit);
    weight_ += weight;
    nearest_ = std::min(nearest_, distance);
  }
  bool empty() const noexcept { return weight_ == 0; }
  double nearest() const noexcept { return nearest_; }
  double factor() const noexcept { return std::exp(sum_ / (weight_ + kModelWeight)); }

 private:
  double sum_ = 0, weight_ = 0, nearest_ = kFar;
};

const Candidate* find(std::span<const Candidate> candidates, const Config& config) {
  const auto found = std::ranges::find(candidates, config, &Candidate::config);
  return found == candidates.end() ? nullptr : &*found;
}

std::string microseconds(const Config& config, double us) {
  return text(config.str(), " ", tenths(us), " us");
}

// What of a record's time is packing of the weight.
double recorded_packing_us(const Config& config, const Problem& problem, const Gpu& gpu) {
  const bool packs =
      config.variant->weight == WeightOrder::channels_last && problem.layout == Layout::nchw;
  return packs ? packing_us(problem, gpu) : 0.0;
}

std::optional<Prediction> by_itself(const Problem& problem, const Gpu& gpu,
                                    const Measured& measured,
                                    std::span<const Candidate> candidates) {
  std::optional<Candidate> best;
  std::string seen;
  const auto weigh = [&](const Config& config, double us) {
    if (!best || us < best->microseconds) best = Candidate{config, us};
  };
  if (find(candidates, Config{})) weigh(Config{}, measured.aten_microseconds);
  for (const auto& [config, ratio] : measured.configs) {
    if (!find(candidates, config)) continue;
    const double us = ratio * measured.aten_microseconds;
    const double packing = needs_packing(*config.variant, problem) ? packing_us(problem, gpu) : 0.0;
    weigh(config, us - recorded_packing_us(config, problem, gpu) + packing);
    if (seen.empty()) seen = microseconds(config, us);
  }
  if (!best) return std::nullopt;
  const std::string aten = microseconds(Config{}, measured.aten_microseconds);
  return Prediction{*best, text("measured: ", seen, seen.empty() ? "" : ", ", aten)};
}

// As configs are measured, with packing of a weight in the problem's layout.
double modelled_us(const Config& config, const Problem& problem, const Gpu& gpu) {
  return family_of(*config.variant)->microseconds(config, problem, gpu) +
         recorded_packing_us(config, problem, gpu);
}

// What the nearest problems tell of the model's times: of a config itself, else of its family.
struct Corrections {
  Correction aten;
  std::vector<std::pair<Config, Correction>> configs;
  std::vector<std::pair<std::string_view, Correction>> families;

  Corrections(const std::array<Neighbour, Records::kNeighbours>& neighbours, const Gpu& gpu) {
    const auto of = [](auto& list, const auto& key) -> Correction& {
      for (auto& [known, correction] : list)
        if (known == key) return correction;
      return list.emplace_back(key, Correction{}).second;
    };
    for (const auto& [measured, distance] : neighbours) {
      if (distance > kFar) break;
      const Problem& problem = measured->problem;
      aten.add(measured->aten_microseconds, aten_us(problem, gpu), distance);
      for (const auto& [config, ratio] : measured->configs) {
        const double us = ratio * measured->aten_microseconds;
        const double modelled = modelled_us(config, problem, gpu);
        of(configs, config).add(us, modelled, distance);
        of(families, config.variant->family).add(us, modelled, distance);
      }
    }
  }

  const Correction& of(const Config& config) const noexcept {
    if (config.is_aten()) return aten;
    for (const auto& [known, correction] : configs)
      if (known == config) return correction;
    for (const auto& [family, correction] : families)
      if (family == config.variant->family) return correction;
    return none;
  }

 private:
  static const Correction none;
};
const Correction Corrections::none;

}  // namespace

std::optional<Prediction> predict(const Problem& problem, const Gpu& gpu, const Records& records,
                                  std::span<const Candidate> candidates) {
  if (const Measured* measured = records.exact(problem))
    if (auto prediction = by_itself(problem, gpu, *measured, candidates)) return prediction;

  const auto neighbours = records.nearest(problem);
  if (neighbours[0].distance > kFar) return std::nullopt;
  const Corrections corrections(neighbours, gpu);
  std::optional<Candidate> kernel, aten;
  double least = kNever;  // of a kernel, if it is as slow as it may be
  for (const Candidate& candidate : candidates) {
    const Correction& correction = corrections.of(candidate.config);
    const double us = candidate.microseconds * correction.factor();
    if (candidate.config.is_aten()) {
      aten = Candidate{candidate.config, us};
      continue;
    }
    const double slow = us * (1 + kDoubt + kDoubtPerDistance * correction.nearest());
    if (slow < least) least = slow, kernel = Candidate{candidate.config, us};
  }
  const std::string like =
      text("the nearest that was measured is ", neighbours[0].measured->problem.str());
  if (aten && !(least < aten->microseconds))
    return Prediction{*aten, text("no kernel is surely quicker; ", like)};
  return Prediction{*kernel, text("by a record near; ", like)};
}

}  // namespace convt
