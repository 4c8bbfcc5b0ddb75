// The choice: a measured record if there is one, else the config of least modelled time, over all
// families and ATen.
#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "convt/plan.hpp"
#include "convt/records.hpp"
#include "core/registry_data.hpp"
#include "core/text.hpp"
#include "dispatch/aten.hpp"
#include "dispatch/build.hpp"
#include "dispatch/predict.hpp"

namespace convt {
namespace {

// Whether a variant multiplies as the problem needs, or more accurately.
bool accurate_enough(const Variant& variant, const Problem& problem) noexcept {
  const Math needed = problem.needed_math();
  // TF32 has fp16's bits, and more of the exponent's.
  return variant.math == needed || (variant.math == Math::fp32 && needed == Math::tf32) ||
         (needed == Math::fp16 && (variant.math == Math::tf32 || variant.math == Math::fp32));
}

// Null if the config may answer the problem; else why not, as a literal.
const char* refusal(const Family& family, const Config& config, const Problem& problem,
                    const Gpu& gpu) noexcept {
  const Variant& variant = *config.variant;
  if (!accurate_enough(variant, problem)) return "it multiplies in another way";
  if (const char* why = other_layout(problem, variant.layout)) return why;
  if (!variant.image(gpu.image.arch, gpu.image.kind)) return "it has no image for this GPU";
  if (needs_packing(variant, problem) && !packing(problem, gpu, {}))
    return "no kernel packs its weight";
  return family.unsupported(problem);
}

constexpr const char* kTooSpecial = "it is too large for one grid or for 32-bit weight rows";

double time_of(const Family& family, const Config& config, const Problem& problem, const Gpu& gpu) {
  const double us = family.microseconds(config, problem, gpu);
  return us + (needs_packing(*config.variant, problem) ? packing_us(problem, gpu) : 0.0);
}

// Why no kernel serves a problem at all; empty where one might.
std::string no_kernel(const Problem& problem, const Gpu& gpu) {
  if (gpu.image.arch == 0) return "no CUDA device that this build has kernels for";
  if (problem.output_numel() == 0) return "the output is empty";
  if (problem.math == Math::other) return "only fp32, fp16 and bf16 have kernels";
  return {};
}

// Every family's reason not to serve a problem.
std::string reasons(const Problem& problem) {
  std::string out;
  for (const auto& [name, family] : kFamilies)
    if (name != "pack") {
      const char* why = family->unsupported(problem);
      append(out, text(out.empty() ? "" : "; ", name, ": ", why ? why : kTooSpecial));
    }
  return out;
}

// ATen multiplies fp32 in TF32 where torch is allowed to, which is not what fp32 products ask for.
bool aten_competes(const Problem& problem) noexcept { return problem.math != Math::fp32; }

// Without a record near, ATen answers unless a kernel is modelled to be so many times as fast: the
// models of either may be that wrong.
constexpr double kModelDoubt = 1.3;

const Candidate& by_model(std::span<const Candidate> all) {
  const auto kernel =
      std::ranges::find_if(all, [](const Candidate& c) { return !c.config.is_aten(); });
  const auto aten = std::ranges::find(all, Config{}, &Candidate::config);
  if (kernel == all.end()) return *aten;
  const bool surely = aten == all.end() || kModelDoubt * kernel->microseconds < aten->microseconds;
  return surely ? *kernel : *aten;
}

}  // namespace

std::vector<Candidate> candidates(const Problem& problem, const Gpu& gpu) {
  std::vector<Candidate> all;
  if (no_kernel(problem, gpu).empty()) {
    for (const auto& [name, family] : kFamilies) {
      if (family->unsupported(problem)) continue;
      for (const Variant& variant : variants()) {
        if (variant.symbol != name || refusal(*family, {.variant = &variant}, problem, gpu))
          continue;
        const std::vector<Config> settings = family->settings
                                                 ? family->settings(variant, problem, gpu)
                                                 : std::vector<Config>{Config{.variant = &variant}};
        for (const Config& config : settings)
          if (const double us = time_of(*family, config, problem, gpu); us < kNever)
            all.push_back({.config = config, .microseconds = us});
      }
    }
  }
  if (all.empty() || aten_competes(problem))
    all.push_back({.config = Config{}, .microseconds = aten_us(problem, gpu)});
  std::ranges::stable_sort(all, {}, &Candidate::microseconds);
  return all;
}

Plan plan(const Problem& problem, const Gpu& gpu) { return plan(problem, gpu, records_for(gpu)); }

Plan plan(const Problem& problem, const Gpu& gpu, const Records& records) {
  std::vector<Candidate> all = candidates(problem, gpu);
  const std::string missing = no_kernel(problem, gpu);
  const std::optional<Prediction> known =
      missing.empty() ? predict(problem, gpu, records, all) : std::nullopt;
  Plan plan = build(problem, gpu, known ? known->best : by_model(all));
  if (!missing.empty())
    plan.reason = missing;
  else if (all.size() == 1 && plan.config.is_aten())
    plan.reason = reasons(problem);
  else if (known)
    append(plan.reason, text(plan.reason.empty() ? "" : "; ", known->reason));
  else if (plan.config.is_aten())
    plan.reason = "no kernel is modelled to be surely quicker";
  all.resize(std::min<std::size_t>(all.size(), 3));
  plan.best = std::move(all);
  return plan;
}

Plan plan_with(const Problem& problem, const Gpu& gpu, const Config& config) {
  Plan chosen;
  if (config.is_aten()) {
    chosen = build(problem, gpu, {.config = config, .microseconds = aten_us(problem, gpu)});
    chosen.reason = "asked for";
    return chosen;
  }
  const Family* const family = family_of(*config.variant);
  std::string why = no_kernel(problem, gpu);
  double us = kNever;
  if (why.empty()) {
    const char* refused = family ? refusal(*family, config, problem, gpu) : "it is no family's";
    if (!refused) us = time_of(*family, config, problem, gpu);
    if (us == kNever) why = refused ? refused : "its tiles or its settings do not suit the problem";
  }
  if (!why.empty())
    throw InvalidArgument(
        text("convt: ", config.str(), " does not serve ", problem.str(), ": ", why));
  return build(problem, gpu, {.config = config, .microseconds = us});
}

}  // namespace convt
