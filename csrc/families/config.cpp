// A config prints and parses with the names of its family's knobs.
#include "convt/config.hpp"

#include <charconv>

#include "core/text.hpp"
#include "families/family.hpp"

namespace convt {
namespace {

// The next word of `text`, which loses it and the space behind.
std::string_view take_word(std::string_view& text) noexcept {
  const std::string_view word = text.substr(0, text.find(' '));
  text.remove_prefix(std::min(word.size() + 1, text.size()));
  return word;
}

}  // namespace

std::string Config::str() const {
  if (!variant) return "aten";
  std::string out(variant->name);
  const Family* family = family_of(*variant);
  for (std::size_t i = 0; family && i < kKnobs; ++i)
    if (knobs[i] != 0) append(out, text(" ", family->knobs[i], "=", knobs[i]));
  return out;
}

std::optional<Config> Config::parse(std::string_view text) {
  const std::string_view name = take_word(text);
  Config config;
  if (name == "aten") return text.empty() ? std::optional(config) : std::nullopt;
  for (const Variant& variant : variants())
    if (variant.name == name) config.variant = &variant;
  const Family* family = config.variant ? family_of(*config.variant) : nullptr;
  if (!family) return std::nullopt;
  while (!text.empty()) {
    const std::string_view word = take_word(text);
    const std::size_t equals = word.find('=');
    std::size_t knob = 0;
    while (knob < kKnobs &&
           (family->knobs[knob].empty() || family->knobs[knob] != word.substr(0, equals)))
      ++knob;
    if (knob == kKnobs || equals == std::string_view::npos) return std::nullopt;
    const char* end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data() + equals + 1, end, config.knobs[knob]);
    if (error != std::errc{} || stop != end) return std::nullopt;
  }
  return config;
}

}  // namespace convt
