#include "convt/launch.hpp"

#include <array>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "driver.hpp"
#include "registry_data.hpp"

namespace convt {
namespace {

constexpr int kMaxDevices = 64;
constexpr std::uint32_t kDefaultSharedBytes = 48 * 1024;  // more has to be asked for, per device

// One image as the driver knows it: loaded once for the process, ready to launch once per device.
// (A CUkernel launches on any device too, but is looked up at each launch.)
struct Loaded {
  CUkernel kernel = nullptr;  // guarded by the mutex of load()
  std::array<std::atomic<CUfunction>, kMaxDevices> functions{};
};

// By Image::index; lives as long as the process, as the loaded libraries do.
Loaded& loaded(const Image& image) {
  static Loaded* all = new Loaded[kImageCount];
  return all[image.index];
}

// CUdevice handles are ordinals.
bool is_current(const Driver& driver, int device) {
  CUdevice current = 0;
  return driver.cuCtxGetDevice(&current) == CUDA_SUCCESS && current == device;
}

// Makes `device`'s primary context current for a scope if another one is.
class ContextGuard {
 public:
  ContextGuard(const Driver& driver, int device) : driver_(driver) {
    if (is_current(driver, device)) return;
    CUdevice wanted = 0;
    CONVT_CHECK(driver, cuDeviceGet, &wanted, device);
    CUcontext context = nullptr;
    // Retained for the life of the process, as torch does.
    CONVT_CHECK(driver, cuDevicePrimaryCtxRetain, &context, wanted);
    CONVT_CHECK(driver, cuCtxPushCurrent, context);
    pushed_ = true;
  }
  ~ContextGuard() {
    CUcontext context = nullptr;
    if (pushed_) driver_.cuCtxPopCurrent(&context);
  }
  ContextGuard(const ContextGuard&) = delete;
  ContextGuard& operator=(const ContextGuard&) = delete;

 private:
  const Driver& driver_;
  bool pushed_ = false;
};

// Loading is legal during another stream's capture only for threads that say they know.
class RelaxedCapture {
 public:
  explicit RelaxedCapture(const Driver& driver) : driver_(driver) {
    CONVT_CHECK(driver, cuThreadExchangeStreamCaptureMode, &mode_);
  }
  ~RelaxedCapture() { driver_.cuThreadExchangeStreamCaptureMode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  const Driver& driver_;
  CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

void check_device(int device) {
  if (device < 0 || device >= kMaxDevices)
    throw DriverError("convt: expected a device index in [0, " + std::to_string(kMaxDevices) +
                      "), got " + std::to_string(device));
}

// The slow path: a kernel's first use on a device, whose context is current.
CUfunction load(const Driver& driver, const Plan& plan, const Image& image, int device) {
  static std::mutex* mutex = new std::mutex;  // outlives static destruction, as its users may
  const std::lock_guard lock(*mutex);
  const RelaxedCapture relaxed(driver);
  Loaded& entry = loaded(image);
  if (!entry.kernel) {
    CUlibrary library = nullptr;
    CONVT_CHECK_PLAN(driver, plan, cuLibraryLoadData, &library, image.data.data(), nullptr, nullptr,
                     0, nullptr, nullptr, 0);
    const std::string symbol(plan.variant->symbol);
    CONVT_CHECK_PLAN(driver, plan, cuLibraryGetKernel, &entry.kernel, library, symbol.c_str());
  }
  if (image.shared_bytes > kDefaultSharedBytes) {
    CUdevice handle = 0;
    CONVT_CHECK(driver, cuDeviceGet, &handle, device);
    CONVT_CHECK_PLAN(driver, plan, cuKernelSetAttribute,
                     CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                     static_cast<int>(image.shared_bytes), entry.kernel, handle);
  }
  CUfunction function = nullptr;
  CONVT_CHECK_PLAN(driver, plan, cuKernelGetFunction, &function, entry.kernel);
  entry.functions[static_cast<std::size_t>(device)].store(function, std::memory_order_release);
  return function;
}

int environment_arch() {
  const char* text = std::getenv("CONVT_ARCH");
  if (!text || !*text) return 0;
  const char* digits = std::strncmp(text, "sm_", 3) == 0 ? text + 3 : text;
  const char* end = digits + std::strlen(digits);
  int arch = 0;
  const auto [stop, error] = std::from_chars(digits, end, arch);
  if (error != std::errc{} || stop != end || arch <= 0)
    throw DriverError(std::string("convt: expected CONVT_ARCH to be like sm_89, got ") + text);
  return arch;
}

bool environment_jit() {
  const char* text = std::getenv("CONVT_JIT");
  return !text || std::strcmp(text, "0") != 0;
}

}  // namespace

void check_driver() { Driver::get(); }

int device_count() {
  int count = 0;
  try {
    const Driver& driver = Driver::get();
    CONVT_CHECK(driver, cuDeviceGetCount, &count);
  } catch (const DriverError&) {
    return 0;
  }
  return count;
}

int device_arch(int device) {
  const Driver& driver = Driver::get();
  CUdevice handle = 0;
  int major = 0, minor = 0;
  CONVT_CHECK(driver, cuDeviceGet, &handle, device);
  CONVT_CHECK(driver, cuDeviceGetAttribute, &major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
              handle);
  CONVT_CHECK(driver, cuDeviceGetAttribute, &minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
              handle);
  return 10 * major + minor;
}

Target select_target(int arch, int force_arch, bool allow_jit) noexcept {
  const auto allowed = [&](int candidate) { return !force_arch || candidate == force_arch; };
  // sm_8x code runs on later 8.x; from 9.0 on Triton emits architecture-specific (sm_90a) code.
  const auto loads = [&](int candidate) {
    return candidate == arch || (arch < 90 && candidate / 10 == arch / 10 && candidate < arch);
  };
  Target target;
  for (const int candidate : architectures(ImageKind::cubin))
    if (allowed(candidate) && loads(candidate)) target = {candidate, ImageKind::cubin};
  if (target.arch == 0 && allow_jit)
    for (const int candidate : architectures(ImageKind::ptx))
      if (allowed(candidate) && candidate <= arch) target = {candidate, ImageKind::ptx};
  return target;
}

Target device_target(int device) {
  check_device(device);
  struct Environment {
    int arch = environment_arch();
    bool jit = environment_jit();
  };
  static const Environment environment;
  // A target packed into one word (arch, kind), 0 while unknown: read without a lock.
  static std::array<std::atomic<std::uint32_t>, kMaxDevices> known{};
  std::atomic<std::uint32_t>& slot = known[static_cast<std::size_t>(device)];
  constexpr std::uint32_t kKnown = 1u << 31;
  std::uint32_t word = slot.load(std::memory_order_relaxed);
  if (word == 0) [[unlikely]] {
    const Target target = select_target(device_arch(device), environment.arch, environment.jit);
    word = kKnown | static_cast<std::uint32_t>(target.arch) << 1 |
           static_cast<std::uint32_t>(target.kind);
    slot.store(word, std::memory_order_relaxed);
  }
  return {static_cast<int>((word & ~kKnown) >> 1), static_cast<ImageKind>(word & 1)};
}

Launch::Launch(const Plan& plan, int device) : plan_(plan), device_(device) {
  check_device(device);
  if (!plan.variant)
    throw DriverError("convt: launch needs a plan with a kernel, got " + plan.str());
  const Variant& variant = *plan.variant;
  const Image& image = *variant.image(plan.target.arch, plan.target.kind);
  shared_bytes_ = image.shared_bytes;
  function_ =
      loaded(image).functions[static_cast<std::size_t>(device)].load(std::memory_order_acquire);
  if (!function_) {
    const Driver& driver = Driver::get();
    const ContextGuard context(driver, device);
    function_ = load(driver, plan, image, device);
  }
  // As C lays out a struct, which is how PTX lays out parameters: each on a multiple of its size.
  const auto append = [this](std::int64_t value, std::size_t size) {
    bytes_ = (bytes_ + size - 1) / size * size;
    std::memcpy(&parameters_[bytes_], &value, size);  // the machine is little-endian
    bytes_ += size;
  };
  for (const Parameter& parameter : variant.parameters)
    append(plan.arguments[static_cast<std::size_t>(parameter.param)],
           parameter.type == ParamType::i32 ? 4 : 8);
  // Triton appends two scratch pointers to every kernel; the build refuses kernels that use them.
  for (int scratch = 0; scratch < 2; ++scratch) append(0, 8);
}

void Launch::operator()(const Pointers& pointers, CUstream_st* stream) const {
  const Driver& driver = Driver::get();
  const ContextGuard context(driver, device_);
  const std::array<const void*, kPointerCount> addresses{pointers.x, pointers.weight, pointers.bias,
                                                         pointers.y};
  auto parameters = parameters_;
  std::byte* next = parameters.data();
  for (const Parameter& parameter : plan_.variant->parameters) {
    if (parameter.type != ParamType::pointer) break;  // pointers come first
    std::memcpy(next, &addresses[static_cast<std::size_t>(parameter.param)], sizeof(void*));
    next += sizeof(void*);
  }
  std::size_t bytes = bytes_;
  std::array<void*, 5> extra{CU_LAUNCH_PARAM_BUFFER_POINTER, parameters.data(),
                             CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
  const Grid& grid = plan_.grid;
  CONVT_CHECK_PLAN(driver, plan_, cuLaunchKernel, function_, grid.x, grid.y, grid.z,
                   32 * plan_.variant->warps, 1, 1, shared_bytes_, stream, nullptr, extra.data());
}

bool Launch::is_on_current_device() const { return is_current(Driver::get(), device_); }

void launch(const Plan& plan, const Pointers& pointers, int device, CUstream_st* stream) {
  Launch(plan, device)(pointers, stream);
}

int preload(int device) {
  const Target target = device_target(device);
  const Driver& driver = Driver::get();
  const ContextGuard context(driver, device);
  int count = 0;
  for (const Variant& variant : variants())
    if (const Image* image = variant.image(target.arch, target.kind)) {
      Plan plan;
      plan.target = target;
      plan.variant = &variant;
      plan.reason = "preload";
      load(driver, plan, *image, device);
      ++count;
    }
  return count;
}

}  // namespace convt
