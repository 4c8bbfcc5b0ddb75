// Running a plan on a device. libcuda is opened at the first call, never when this library loads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "convt/export.hpp"
#include "convt/plan.hpp"

struct CUfunc_st;    // CUfunction is a pointer to it
struct CUstream_st;  // CUstream and cudaStream_t are pointers to it

namespace convt {

// A failed driver call: names the call, its error, the kernel and the problem.
struct CONVT_EXPORT DriverError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Device addresses. `x` and `weight` lie as the problem says; `y` is dense in the problem's layout.
// `y` and `workspace` start on a 256-byte boundary, and `workspace` has plan.workspace_bytes.
// `bias` may be null if the problem has none, `workspace` if the plan needs none.
struct Pointers {
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  void* y = nullptr;
  void* workspace = nullptr;
};

// Throws DriverError where CUDA cannot be used: without a driver, after a fork.
CONVT_EXPORT void check_driver();

// Number of CUDA devices; 0 where there is no driver.
CONVT_EXPORT int device_count();

// Compute capability of `device` times ten (89 for 8.9).
CONVT_EXPORT int device_arch(int device);

// The GPU `device`, as its driver describes it, with the image that this library has for it under
// CONVT_ARCH=sm_NN and CONVT_JIT=0|1. Both are read once per process.
CONVT_EXPORT const Gpu& device_gpu(int device);

// A plan made ready for one device: kernels loaded, so that a launch only fills in addresses. A
// value; stays valid for the life of the process.
class CONVT_EXPORT Launch {
 public:
  // Needs plan.served(). Safe during graph capture. Throws DriverError.
  Launch(const Plan& plan, int device);
  // Enqueues the steps on `stream` of the device. Throws DriverError.
  void operator()(const Pointers& pointers, CUstream_st* stream) const;
  const Plan& plan() const noexcept { return plan_; }
  // Whether its device is the calling thread's current one.
  bool is_on_current_device() const;

 private:
  void run(const Step& step, CUfunc_st* function, const Pointers& pointers,
           CUstream_st* stream) const;
  Plan plan_;
  int device_;
  std::vector<CUfunc_st*> functions_;  // of the steps
};

// Launch(plan, device)(pointers, stream).
CONVT_EXPORT void launch(const Plan& plan, const Pointers& pointers, int device,
                         CUstream_st* stream);

// Loads every kernel that `device` may use, and its table of measured times; returns how many
// kernels. Safe during graph capture.
CONVT_EXPORT int preload(int device);

}  // namespace convt
