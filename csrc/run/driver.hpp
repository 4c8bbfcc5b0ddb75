// libcuda, opened when the first call needs it so that the library loads on machines without one.
#pragma once

#include <cuda.h>

#include <string_view>

#include "convt/plan.hpp"

namespace convt {

// clang-format off
#define CONVT_DRIVER_CALLS(X)                                                                     \
  X(cuInit) X(cuGetErrorName) X(cuGetErrorString)                                                 \
  X(cuDeviceGetCount) X(cuDeviceGet) X(cuDeviceGetAttribute) X(cuDeviceGetName)                   \
  X(cuCtxGetDevice) X(cuCtxPushCurrent) X(cuCtxPopCurrent) X(cuDevicePrimaryCtxRetain)            \
  X(cuThreadExchangeStreamCaptureMode)                                                            \
  X(cuLibraryLoadData) X(cuLibraryGetKernel) X(cuKernelGetFunction) X(cuKernelSetAttribute)       \
  X(cuLaunchKernel) X(cuTensorMapEncodeTiled)
// clang-format on

struct Driver {
#define CONVT_DRIVER_CALL(call) decltype(&::call) call = nullptr;
  CONVT_DRIVER_CALLS(CONVT_DRIVER_CALL)
#undef CONVT_DRIVER_CALL

  // The process's driver. Throws DriverError, saying what is missing, while there is none.
  static const Driver& get();

  // Throws DriverError naming the call, its error and, where there is one, the plan.
  void check(CUresult result, const char* call, const Plan* plan = nullptr) const {
    if (result != CUDA_SUCCESS) [[unlikely]]
      fail(result, call, plan);
  }

 private:
  [[noreturn]] void fail(CUresult result, const char* call, const Plan* plan) const;
};

#define CONVT_CHECK(driver, call, ...) (driver).check((driver).call(__VA_ARGS__), #call)
#define CONVT_CHECK_PLAN(driver, plan, call, ...) \
  (driver).check((driver).call(__VA_ARGS__), #call, &(plan))

}  // namespace convt
