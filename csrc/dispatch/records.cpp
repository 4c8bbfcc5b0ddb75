#include "convt/records.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "dispatch/recorded.hpp"

namespace convt {
namespace {

constexpr std::array<const Axis Problem::*, 3> kAxes{&Problem::d, &Problem::h, &Problem::w};

// What decides which kernels can compete at all.
enum class Kind : std::uint32_t { one_tap, overlapping, dense };

Kind kind(const Problem& p) noexcept {
  if (p.d.has_one_tap() && p.h.has_one_tap() && p.w.has_one_tap()) return Kind::one_tap;
  const bool strided = p.d.stride > 1 || p.h.stride > 1 || p.w.stride > 1;
  return strided ? Kind::overlapping : Kind::dense;
}

float square(float number) noexcept { return number * number; }

float log2(std::int64_t number) noexcept { return std::log2(static_cast<float>(number)); }

constexpr std::size_t kFeatures = 8;
using Features = std::array<float, kFeatures>;

// Problems that can be neighbours. A block has the features of kLanes of them, so that distances
// are summed up in vectors.
constexpr std::size_t kLanes = 8;
using Block = std::array<std::array<float, kLanes>, kFeatures>;
struct Bucket {
  std::vector<std::uint32_t> members;
  std::vector<Block> blocks;
};

struct Hash {
  std::size_t operator()(const Problem& p) const noexcept {
    std::size_t hash = static_cast<std::size_t>(p.batch);
    const auto mix = [&hash](std::int64_t n) {
      hash = hash * 1000003 + static_cast<std::size_t>(n);
    };
    for (const std::int64_t n : {p.in_channels, p.out_channels, p.groups}) mix(n);
    for (const auto axis : kAxes)
      for (const std::int64_t n : {(p.*axis).in, (p.*axis).kernel, (p.*axis).stride}) mix(n);
    return hash ^ hash >> 29;
  }
};

struct Same {
  bool operator()(const Problem& a, const Problem& b) const noexcept {
    return a.batch == b.batch && a.in_channels == b.in_channels &&
           a.out_channels == b.out_channels && a.groups == b.groups && a.d == b.d && a.h == b.h &&
           a.w == b.w && a.math == b.math && a.layout == b.layout;
  }
};

std::uint32_t bucket_of(const Problem& p) noexcept {
  const std::uint32_t math = static_cast<std::uint32_t>(p.math);
  const std::uint32_t layout = static_cast<std::uint32_t>(p.layout);
  const std::uint32_t grouped = p.groups > 1;
  return ((math * 2 + layout) * 2 + grouped) * 3 + static_cast<std::uint32_t>(kind(p));
}

// The distance of two problems is the root of the sum of their features' squared differences.
Features features_of(const Problem& p) noexcept {
  const std::int64_t pixels = p.d.in * p.h.in * p.w.in;
  const std::int64_t phases = p.d.stride * p.h.stride * p.w.stride;
  const std::int64_t lanes = 16 / p.element_bytes();
  const bool vectors = p.group_out() % lanes == 0 && p.group_in() % lanes == 0;
  return {log2(p.group_in()),   log2(p.group_out()),   log2(p.taps()),
          log2(phases),         0.5F * log2(p.groups), 0.5F * log2(p.batch * pixels),
          0.25F * log2(p.w.in), vectors ? 1.0F : 0.0F};
}

// The logarithm of measured over modelled time. A model may refuse what was measured once, or be
// wrong beyond use.
float correction(double measured, double modelled) noexcept {
  constexpr float kLargest = 2;
  const double ratio = std::log(measured / modelled);
  return std::isfinite(ratio) ? std::clamp(static_cast<float>(ratio), -kLargest, kLargest) : 0.0F;
}

void correct(Measured& measured, const Gpu& gpu) {
  const Problem& problem = measured.problem;
  const double aten = measured.aten_microseconds;
  measured.aten_correction = correction(aten, modelled_us(Config{}, problem, gpu));
  std::unordered_map<std::string_view, std::pair<float, int>> families;  // sum and number
  for (Timed& timed : measured.configs) {
    timed.beside_family = correction(timed.ratio * aten, modelled_us(timed.config, problem, gpu));
    auto& [sum, number] = families[timed.config.variant->family];
    sum += timed.beside_family, ++number;
  }
  for (auto& [family, of] : families) {
    of.first /= static_cast<float>(of.second);
    measured.family_corrections.emplace_back(family, of.first);
  }
  for (Timed& timed : measured.configs)
    timed.beside_family -= families[timed.config.variant->family].first;
}

}  // namespace

struct Records::Index {
  std::vector<Measured> measured;
  std::unordered_map<Problem, std::uint32_t, Hash, Same> by_problem;
  std::unordered_map<std::uint32_t, Bucket> buckets;
};

Records::Records() : index_(std::make_shared<Index>()) {}

std::size_t Records::size() const noexcept { return index_->measured.size(); }

Records::Records(const Gpu& gpu, std::span<const Record* const> records) {
  const auto made = std::make_shared<Index>();
  auto& [measured, by_problem, buckets] = *made;
  std::unordered_map<std::string_view, std::optional<Config>> configs;
  for (const Record* record : records) {
    const auto [place, is_new] = by_problem.try_emplace(record->problem, measured.size());
    if (is_new)
      measured.push_back({.problem = record->problem,
                          .aten_microseconds = record->aten_microseconds,
                          .configs = {},
                          .aten_correction = 0,
                          .family_corrections = {}});
    auto known = configs.find(record->config);
    if (known == configs.end())
      known = configs.emplace(record->config, Config::parse(record->config)).first;
    if (!known->second) continue;
    std::vector<Timed>& timed = measured[place->second].configs;
    const bool again =
        std::ranges::any_of(timed, [&](const Timed& t) { return t.config == *known->second; });
    if (!again)
      timed.push_back({.config = *known->second,
                       .ratio = record->microseconds / record->aten_microseconds,
                       .beside_family = 0});
  }
  for (Measured& of : measured) correct(of, gpu);
  for (std::uint32_t i = 0; i < measured.size(); ++i) {
    std::ranges::stable_sort(measured[i].configs, {}, &Timed::ratio);
    Bucket& of = buckets[bucket_of(measured[i].problem)];
    const std::size_t lane = of.members.size() % kLanes;
    if (lane == 0) of.blocks.emplace_back();
    of.members.push_back(i);
    const Features values = features_of(measured[i].problem);
    for (std::size_t f = 0; f < kFeatures; ++f) of.blocks.back()[f][lane] = values[f];
  }
  index_ = made;
}

const Measured* Records::exact(const Problem& problem) const noexcept {
  const auto found = index_->by_problem.find(problem);
  return found == index_->by_problem.end() ? nullptr : &index_->measured[found->second];
}

std::array<Neighbour, Records::kNeighbours> Records::nearest(
    const Problem& problem) const noexcept {
  std::array<Neighbour, Records::kNeighbours> best{};
  const auto found = index_->buckets.find(bucket_of(problem));
  if (found == index_->buckets.end()) return best;
  const Bucket& of = found->second;
  const Features values = features_of(problem);
  for (std::size_t begin = 0; begin < of.members.size(); begin += kLanes) {
    const Block& block = of.blocks[begin / kLanes];
    std::array<float, kLanes> squares{};
    for (std::size_t lane = 0; lane < kLanes; ++lane)
      for (std::size_t f = 0; f < kFeatures; ++f)
        squares[lane] += square(block[f][lane] - values[f]);
    const std::size_t lanes = std::min(kLanes, of.members.size() - begin);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      if (!(squares[lane] < best.back().distance)) continue;
      best.back() = {.measured = &index_->measured[of.members[begin + lane]],
                     .distance = squares[lane]};
      for (std::size_t k = best.size() - 1; k > 0 && best[k].distance < best[k - 1].distance; --k)
        std::swap(best[k], best[k - 1]);
    }
  }
  for (Neighbour& neighbour : best) neighbour.distance = std::sqrt(neighbour.distance);
  return best;
}

}  // namespace convt
