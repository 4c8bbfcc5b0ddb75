// Running a plan on a device. libcuda is opened at the first call, never when this library loads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "convt/export.hpp"
#include "convt/plan.hpp"

struct CUfunc_st;    // CUfunction is a pointer to it
struct CUstream_st;  // CUstream and cudaStream_t are pointers to it

namespace convt {

// A failed driver call: names the call, its error, the kernel and the problem.
struct CONVT_EXPORT DriverError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Device addresses. `weight` is packed: [in_channels, kernel_h, kernel_w, out_channels / groups],
// which is torch's weight in channels_last, on a 16-byte boundary, as is `y`; `x` is where the
// problem says so. `bias` may be null if the problem has none.
struct Pointers {
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  void* y = nullptr;
};

// Throws DriverError where CUDA cannot be used: without a driver, after a fork.
CONVT_EXPORT void check_driver();

// Number of CUDA devices; 0 where there is no driver.
CONVT_EXPORT int device_count();

// Compute capability of `device` times ten (89 for 8.9).
CONVT_EXPORT int device_arch(int device);

// What this library runs on a device of capability `arch` (89 for 8.9): a cubin that loads there,
// else the newest PTX that the driver can compile, else {0, cubin} when nothing runs. Pure.
//   force_arch: consider images of this architecture only (0: all)
//   allow_jit:  whether PTX may be used
CONVT_EXPORT Target select_target(int arch, int force_arch, bool allow_jit) noexcept;

// select_target for `device` under CONVT_ARCH=sm_NN and CONVT_JIT=0|1, read once per process.
CONVT_EXPORT Target device_target(int device);

// A plan made ready for one device: the kernel loaded and its parameters laid out, so that a launch
// only fills in addresses. A value; stays valid for the life of the process.
class CONVT_EXPORT Launch {
 public:
  // Needs plan.variant. Safe during graph capture. Throws DriverError.
  Launch(const Plan& plan, int device);
  // Enqueues the kernel on `stream` of the device. Throws DriverError.
  void operator()(const Pointers& pointers, CUstream_st* stream) const;
  const Plan& plan() const noexcept { return plan_; }
  // Whether its device is the calling thread's current one.
  bool is_on_current_device() const;

 private:
  // Every parameter in 8 bytes, and the two that Triton appends to all kernels.
  static constexpr std::size_t kMaxBytes = 8 * (kParamCount + 2);
  Plan plan_;
  int device_;
  CUfunc_st* function_;
  std::uint32_t shared_bytes_;
  std::size_t bytes_ = 0;
  alignas(8) std::array<std::byte, kMaxBytes> parameters_{};  // as the kernel reads them
};

// Launch(plan, device)(pointers, stream).
CONVT_EXPORT void launch(const Plan& plan, const Pointers& pointers, int device,
                         CUstream_st* stream);

// Loads every kernel that `device` may use; returns how many. Safe during graph capture.
CONVT_EXPORT int preload(int device);

}  // namespace convt
