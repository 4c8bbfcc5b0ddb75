// The answer to a problem, as a value that compares, prints and parses back: a variant with its
// family's knobs, or ATen.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "convt/export.hpp"
#include "convt/registry.hpp"

namespace convt {

inline constexpr std::size_t kKnobs = 4;

struct Config {
  const Variant* variant = nullptr;  // null: ATen
  // Settings that the variant's family names; 0 leaves one to the family's own rule.
  std::array<std::int32_t, kKnobs> knobs{};

  bool operator==(const Config&) const = default;
  bool is_aten() const noexcept { return !variant; }
  // "aten", "phase_f16_nhwc_128x128x32_w8_a16", "halo_f16_nhwc_128x64 split=4 stages=3"
  CONVT_EXPORT std::string str() const;
  // The config that prints so; nothing if this library has no such variant or knob.
  CONVT_EXPORT static std::optional<Config> parse(std::string_view text);
};

// A config and its modelled time on one problem and GPU; the time includes packing of the weight.
struct Candidate {
  Config config;
  double microseconds = 0;
};

}  // namespace convt
