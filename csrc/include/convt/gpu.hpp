// The GPU that a plan is made for: numbers only, no CUDA call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "convt/export.hpp"
#include "convt/problem.hpp"
#include "convt/registry.hpp"

namespace convt {

// A kernel image to plan for: `arch` as in sm_89, and whether the driver must compile its PTX.
struct Target {
  int arch = 0;
  ImageKind kind = ImageKind::cubin;
  bool operator==(const Target&) const = default;
};

// The image that this library runs on a device of capability `arch` (89 for 8.9): a cubin that
// loads there, else the newest PTX that the driver can compile, else {0, cubin}: nothing runs.
//   force_arch: consider images of this architecture only (0: all)
//   allow_jit:  whether PTX may be used
CONVT_EXPORT Target select_target(int arch, int force_arch, bool allow_jit) noexcept;

struct Gpu {
  std::string name;  // as NVIDIA sells it, without "NVIDIA" and "GeForce"
  int arch = 0;      // compute capability times ten
  Target image;      // what runs on it; arch 0: nothing does
  int multiprocessors = 0;
  int shared_kib = 0;     // shared memory of a multiprocessor
  int threads = 0;        // threads that a multiprocessor keeps
  int registers = 65536;  // 32-bit registers of a multiprocessor
  double bandwidth = 0;   // of device memory, GB/s
  double clock = 0;       // of a multiprocessor, GHz
  bool operator==(const Gpu&) const = default;

  // Multiply-adds a second times two, in TFLOP/s: of tensor cores, or of fp32 units for
  // Math::other.
  CONVT_EXPORT double rate(Math math) const noexcept;
  // How many programs run at once on the whole GPU, where a program has `warps` warps of this
  // image: at least one for each multiprocessor.
  CONVT_EXPORT std::int64_t resident(const Image& image, std::uint32_t warps) const noexcept;
  // Lower bounds in microseconds: for moving so many bytes, and for so many operations.
  double memory_us(double bytes) const noexcept { return bytes / bandwidth * 1e-3; }
  double math_us(double flops, Math math) const noexcept { return flops / rate(math) * 1e-6; }
  // max(memory_us, math_us) of a problem: no kernel can be quicker.
  CONVT_EXPORT double floor_us(const Problem& problem) const noexcept;
  CONVT_EXPORT Gpu with_image(const Target& target) const;
  CONVT_EXPORT std::string str() const;

  // The preset of a product ("RTX 4090"; case and "NVIDIA GeForce" do not matter) or of the usual
  // product of an architecture ("sm_89", "89"), with the image that this library has for it.
  // Nothing where there is no such preset.
  CONVT_EXPORT static std::optional<Gpu> preset(std::string_view name);
  // Whether two names are of the same product, as preset() compares them.
  CONVT_EXPORT static bool same_product(std::string_view a, std::string_view b);
  // The products that preset() knows, separated by ", ".
  CONVT_EXPORT static std::string presets();
};

}  // namespace convt
