#include "dispatch/predict.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "core/text.hpp"
#include "dispatch/build.hpp"
#include "dispatch/recorded.hpp"

namespace convt {
namespace {

// A problem that is farther away says nothing.
constexpr float kFar = 4;
// A kernel answers if it is modelled to be quicker than ATen by this; by less, the more was
// measured near. `python -m benchmarks.regret` tells what it costs.
constexpr float kDoubt = 0.09F;
constexpr float kSureness = 3;  // by the weight of the config's own measurements

// The mean of logarithms of measured over modelled time, and the weight of the models themselves,
// whose logarithm is 0.
class Mean {
 public:
  void add(float value, float weight) noexcept { sum_ += weight * value, weight_ += weight; }
  float with(float models_weight) const noexcept { return sum_ / (weight_ + models_weight); }
  float weight() const noexcept { return weight_; }

 private:
  float sum_ = 0, weight_ = 0;
};

const Candidate* find(std::span<const Candidate> candidates, const Config& config) {
  const auto found = std::ranges::find(candidates, config, &Candidate::config);
  return found == candidates.end() ? nullptr : &*found;
}

std::string microseconds(const Config& config, double us) {
  return text(config.str(), " ", tenths(us), " us");
}

std::optional<Prediction> by_itself(const Problem& problem, const Gpu& gpu,
                                    const Measured& measured,
                                    std::span<const Candidate> candidates) {
  std::optional<Candidate> best;
  std::string seen;
  const auto weigh = [&](const Config& config, double us) {
    if (!best || us < best->microseconds) best = Candidate{.config = config, .microseconds = us};
  };
  if (find(candidates, Config{})) weigh(Config{}, measured.aten_microseconds);
  for (const Timed& timed : measured.configs) {
    const Config& config = timed.config;
    if (!find(candidates, config)) continue;
    const double us = timed.ratio * measured.aten_microseconds;
    const double packing = needs_packing(*config.variant, problem) ? packing_us(problem, gpu) : 0.0;
    weigh(config, us - recorded_packing_us(config, problem, gpu) + packing);
    if (seen.empty()) seen = microseconds(config, us);
  }
  if (!best) return std::nullopt;
  const std::string aten = microseconds(Config{}, measured.aten_microseconds);
  return Prediction{.best = *best,
                    .reason = text("measured: ", seen, seen.empty() ? "" : ", ", aten)};
}

// What the nearest problems tell of the models' times. A family's error is much the same on near
// problems; how a config differs from its family's others, on farther ones too.
class Corrections {
 public:
  explicit Corrections(std::span<const Neighbour> neighbours) {
    for (const auto& [measured, distance] : neighbours) {
      if (distance > kFar) break;
      const float far = std::exp(-static_cast<float>(distance));
      const float near = far * far;
      aten_.add(measured->aten_correction, near);
      for (const auto& [family, correction] : measured->family_corrections)
        of(families_, family).add(correction, near);
      for (const Timed& timed : measured->configs)
        of(configs_, timed.config).add(timed.beside_family, far);
    }
  }

  // The time that is to be expected of a modelled one.
  double expected(const Candidate& candidate) const noexcept {
    if (candidate.config.is_aten())
      return candidate.microseconds * std::exp(aten_.with(kModelsOfFamily));
    const float sum =
        get(families_, std::string_view(candidate.config.variant->family)).with(kModelsOfFamily) +
        get(configs_, candidate.config).with(kModelsOfConfig);
    return candidate.microseconds * std::exp(sum);
  }
  // How many times that it may be.
  double doubt(const Config& config) const noexcept {
    return 1 + kDoubt / std::sqrt(1 + kSureness * get(configs_, config).weight());
  }

 private:
  static constexpr float kModelsOfFamily = 0.05F, kModelsOfConfig = 0.1F;
  template <class Key>
  using List = std::vector<std::pair<Key, Mean>>;

  template <class Key>
  static Mean& of(List<Key>& list, const Key& key) {
    const auto found = std::ranges::find(list, key, &std::pair<Key, Mean>::first);
    return found == list.end() ? list.emplace_back(key, Mean{}).second : found->second;
  }
  template <class Key>
  static Mean get(const List<Key>& list, const Key& key) noexcept {
    const auto found = std::ranges::find(list, key, &std::pair<Key, Mean>::first);
    return found == list.end() ? Mean{} : found->second;
  }

  Mean aten_;
  List<Config> configs_;
  List<std::string_view> families_;
};

}  // namespace

std::optional<Prediction> predict(const Problem& problem, const Gpu& gpu, const Records& records,
                                  std::span<const Candidate> candidates) {
  if (const Measured* measured = records.exact(problem))
    if (auto prediction = by_itself(problem, gpu, *measured, candidates)) return prediction;

  const auto neighbours = records.nearest(problem);
  if (neighbours[0].distance > kFar) return std::nullopt;
  const Corrections corrections(neighbours);
  std::optional<Candidate> kernel, aten;
  double least = kNever;  // of a kernel, if it is as slow as it may be
  for (const Candidate& candidate : candidates) {
    const double us = corrections.expected(candidate);
    if (candidate.config.is_aten()) {
      aten = Candidate{.config = candidate.config, .microseconds = us};
      continue;
    }
    const double slow = us * corrections.doubt(candidate.config);
    if (slow < least)
      least = slow, kernel = Candidate{.config = candidate.config, .microseconds = us};
  }
  const std::string like =
      text("the nearest that was measured is ", neighbours[0].measured->problem.str());
  if (aten && !(least < aten->microseconds))
    return Prediction{.best = *aten, .reason = text("no kernel is surely quicker; ", like)};
  return Prediction{.best = *kernel, .reason = text("by a record near; ", like)};
}

}  // namespace convt
