// Text from parts, without streams: those carry a locale, which may group digits, and break where
// two copies of libstdc++ meet in a process.
#pragma once

#include <concepts>
#include <string>
#include <string_view>

#include "convt/problem.hpp"

namespace convt {

inline void append(std::string& out, std::string_view part) { out += part; }
inline void append(std::string& out, std::integral auto part) { out += std::to_string(part); }
inline void append(std::string& out, const Pair& part) {
  out += '(' + std::to_string(part.h) + ", " + std::to_string(part.w) + ')';
}

// A number with one digit behind the point.
inline std::string tenths(double value) {
  const auto number = static_cast<std::int64_t>(value * 10 + 0.5);
  return std::to_string(number / 10) + '.' + std::to_string(number % 10);
}

template <class... Parts>
std::string text(const Parts&... parts) {
  std::string out;
  (append(out, parts), ...);
  return out;
}

}  // namespace convt
