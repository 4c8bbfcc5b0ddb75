#include "run/driver.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <cstdlib>

#include "convt/launch.hpp"
#include "core/text.hpp"

namespace convt {
namespace {

// After cuda.h's renaming: cuCtxPushCurrent is exported as cuCtxPushCurrent_v2.
#define CONVT_SYMBOL_NAME(call) #call
#define CONVT_SYMBOL(call) CONVT_SYMBOL_NAME(call)

// A fork does not take the driver's state along.
bool forked = false;

Driver open_driver() {
  const char* override_path = std::getenv("CONVT_LIBCUDA");
  const char* path = override_path ? override_path : "libcuda.so.1";
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library)
    throw DriverError(std::string("convt: no CUDA driver: ") + dlerror() +
                      " (install the NVIDIA driver, or set CONVT_LIBCUDA to its libcuda.so.1)");
  Driver driver;
#define CONVT_DRIVER_CALL(call)                                                              \
  driver.call = reinterpret_cast<decltype(driver.call)>(dlsym(library, CONVT_SYMBOL(call))); \
  if (!driver.call)                                                                          \
    throw DriverError("convt: the CUDA driver has no " CONVT_SYMBOL(                         \
        call) ": convt needs a driver "                                                      \
              "for CUDA 12.0 or newer (525 or newer)");
  CONVT_DRIVER_CALLS(CONVT_DRIVER_CALL)
#undef CONVT_DRIVER_CALL
  CONVT_CHECK(driver, cuInit, 0);
  pthread_atfork(nullptr, nullptr, [] { forked = true; });
  return driver;
}

}  // namespace

const Driver& Driver::get() {
  // Never closed: kernels may still run while static objects are destroyed.
  static const Driver* driver = new Driver(open_driver());
  if (forked) [[unlikely]]
    throw DriverError(
        "convt: cannot use CUDA in a process forked from one that did (with multiprocessing, use "
        "the 'spawn' start method)");
  return *driver;
}

void Driver::fail(CUresult result, const char* call, const Plan* plan) const {
  const char* error = nullptr;
  const char* meaning = nullptr;
  cuGetErrorName(result, &error);
  cuGetErrorString(result, &meaning);
  std::string message = text("convt: ", call, " failed: ", error ? error : "unknown error", " (",
                             static_cast<int>(result), ", ", meaning ? meaning : "?", ")");
  if (plan) append(message, text("\n  while running ", plan->str()));
  throw DriverError(message);
}

}  // namespace convt
