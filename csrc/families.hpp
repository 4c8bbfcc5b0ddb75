// What each kernel family tells the planner: which problems it serves and how it would tile them.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "convt/plan.hpp"

namespace convt {

// A parameter's value that a family's tiling decides.
struct Setting {
  Param param = Param::count;  // count: none
  std::int64_t value = 0;
};

// `variant` on a problem: its grid and its time in arbitrary units, alike within a family.
struct Candidate {
  const Variant* variant = nullptr;
  std::int64_t programs = 0;
  double cost = std::numeric_limits<double>::infinity();
  std::array<Setting, 9> settings{};
  std::int64_t grid_y = 1, grid_z = 1;  // `programs` in x
};

// What a GPU has for programs of a variant.
struct Room {
  int sms = 0;                // multiprocessors
  std::int64_t resident = 0;  // programs that run at once
};

struct FamilyRules {
  Family family;
  const char* reason;  // why it is chosen
  // Null if some variant could serve the problem; else why none does.
  const char* (*unsupported)(const Problem& problem) noexcept;
  // Without a variant if this one cannot serve the problem.
  Candidate (*candidate)(const Variant& variant, const Problem& problem, const Room& room) noexcept;
};

extern const FamilyRules kPhase;
extern const FamilyRules kPixelShuffle;
extern const FamilyRules kPixelShuffleShallow;
extern const FamilyRules kSingleTapNchw;
extern const FamilyRules kSingleTapNhwc;

inline constexpr std::int64_t kInt32 = std::numeric_limits<std::int32_t>::max();
inline constexpr std::int64_t kGridLayers = 65535;  // what a grid may have in y and z

constexpr std::int64_t cdiv(std::int64_t a, std::int64_t b) noexcept { return (a + b - 1) / b; }

// A product of sizes, without overflow.
constexpr double product(auto... factors) noexcept { return (static_cast<double>(factors) * ...); }

// Elements of a 16-byte vector.
constexpr std::int64_t lanes(const Problem& problem) noexcept {
  return problem.dtype == DType::f32 ? 4 : 8;
}

// Whether a variant takes that many input channels, and a step's rows of the packed weight, which
// every variant addresses in 32 bits.
bool weight_fits(const Variant& variant, const Problem& problem) noexcept;

// 16-byte vectors of what is innermost: the packed weight's output channels, and in nhwc the
// channels of a group of input and output.
bool vectors_fit(const Problem& problem) noexcept;

// Null if every size fits a kernel's 32-bit integers.
const char* too_large(const Problem& problem) noexcept;

}  // namespace convt
