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

#include "convt/records.hpp"
#include "core/registry_data.hpp"
#include "run/driver.hpp"
#include "run/tensor_map.hpp"

namespace convt {
namespace {

constexpr int kMaxDevices = 64;
constexpr std::size_t kMaxArgumentBytes = 4096;           // what CUDA 12.0 passes to a kernel
constexpr std::uint32_t kDefaultSharedBytes = 48 * 1024;  // more has to be asked for, per device

// One image as the driver knows it: loaded once for the process, ready to launch once per device.
// (A CUkernel launches on any device too, but is looked up at each launch.)
struct Loaded {
  CUkernel kernel = nullptr;  // guarded by the mutex of load()
  std::array<std::atomic<CUfunction>, kMaxDevices> functions{};
};

// The loaded images, by Image::index. They live as long as the process.
Loaded& loaded(const Image& image) {
  static Loaded* all = new Loaded[kImageCount];
  return all[image.index];
}

const Image& image_of(const Step& step) {
  return *step.variant->image(step.image.arch, step.image.kind);
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

// While another stream is captured, only a thread in relaxed capture mode may load a kernel.
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
CUfunction load(const Driver& driver, const Plan& plan, const Step& step, int device) {
  const Image& image = image_of(step);
  static std::mutex* mutex = new std::mutex;  // outlives static destruction, as its users may
  const std::lock_guard lock(*mutex);
  const RelaxedCapture relaxed(driver);
  Loaded& entry = loaded(image);
  if (!entry.kernel) {
    CUlibrary library = nullptr;
    CONVT_CHECK_PLAN(driver, plan, cuLibraryLoadData, &library, image.data.data(), nullptr, nullptr,
                     0, nullptr, nullptr, 0);
    const std::string symbol(step.variant->symbol);
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

namespace {

// Properties that the model of time needs. The driver tells kHz, and bits of the memory's bus.
Gpu query_gpu(int device) {
  const Driver& driver = Driver::get();
  CUdevice handle = 0;
  CONVT_CHECK(driver, cuDeviceGet, &handle, device);
  const auto attribute = [&](CUdevice_attribute which) {
    int value = 0;
    CONVT_CHECK(driver, cuDeviceGetAttribute, &value, which, handle);
    return value;
  };
  std::array<char, 256> name{};
  CONVT_CHECK(driver, cuDeviceGetName, name.data(), static_cast<int>(name.size()), handle);
  Gpu gpu;
  gpu.arch = device_arch(device);
  // Numbers that the driver does not tell are those of the architecture's usual product.
  if (const auto known = Gpu::preset(name.data()))
    gpu = *known;
  else if (const auto usual = Gpu::preset(std::to_string(gpu.arch)))
    gpu = *usual;
  gpu.name = name.data();
  gpu.arch = device_arch(device);
  gpu.multiprocessors = attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  gpu.shared_kib = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR) / 1024;
  gpu.threads = attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR);
  gpu.registers = attribute(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR);
  const double memory_khz = attribute(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
  const double bus_bits = attribute(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
  if (memory_khz > 0 && bus_bits > 0) gpu.bandwidth = 2 * memory_khz * bus_bits / 8 * 1e-6;
  const int clock_khz = attribute(CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
  if (clock_khz > 0) gpu.clock = clock_khz * 1e-6;
  static const int forced_arch = environment_arch();
  static const bool jit = environment_jit();
  gpu.image = select_target(gpu.arch, forced_arch, jit);
  return gpu;
}

}  // namespace

const Gpu& device_gpu(int device) {
  check_device(device);
  // Never freed, and read without a lock: a call asks for its device's each time.
  static std::array<std::atomic<const Gpu*>, kMaxDevices> known{};
  std::atomic<const Gpu*>& slot = known[static_cast<std::size_t>(device)];
  const Gpu* gpu = slot.load(std::memory_order_acquire);
  if (!gpu) [[unlikely]] {
    gpu = new Gpu(query_gpu(device));
    const Gpu* expected = nullptr;
    if (!slot.compare_exchange_strong(expected, gpu, std::memory_order_acq_rel)) {
      delete gpu;
      gpu = expected;
    }
  }
  return *gpu;
}

Launch::Launch(const Plan& plan, int device) : plan_(plan), device_(device) {
  check_device(device);
  if (!plan.served())
    throw DriverError("convt: launch needs a plan with a kernel, got " + plan.str());
  for (const Step& step : plan_.steps) {
    CUfunction function = loaded(image_of(step))
                              .functions[static_cast<std::size_t>(device)]
                              .load(std::memory_order_acquire);
    if (!function) {
      const Driver& driver = Driver::get();
      const ContextGuard context(driver, device);
      function = load(driver, plan_, step, device);
    }
    functions_.push_back(function);
  }
}

namespace {

// The address of each parameter of the kernel in a step's arguments, Triton's two scratch pointers
// included.
void addresses_of(const Variant& variant, std::byte* arguments, void** each) noexcept {
  std::size_t end = 0;
  const auto place = [&](std::size_t size, std::size_t alignment) {
    end = (end + alignment - 1) / alignment * alignment;
    *each++ = arguments + end;
    end += size;
  };
  for (const Parameter& parameter : variant.parameters) {
    const bool map = parameter.type == ParamType::tensormap;
    if (map)
      place(128, 64);
    else
      place(parameter.type == ParamType::i32 ? 4 : 8, parameter.type == ParamType::i32 ? 4 : 8);
    for (int i = 0; i < parameter.rank; ++i) place(4, 4);
    for (int i = 0; i < parameter.rank; ++i) place(8, 8);
  }
  place(8, 8);
  place(8, 8);
}

}  // namespace

void Launch::run(const Step& step, CUfunc_st* function, const Pointers& pointers,
                 CUstream_st* stream) const {
  const Driver& driver = Driver::get();
  alignas(64) std::array<std::byte, kMaxArgumentBytes> parameters;
  std::memcpy(parameters.data(), step.arguments.data(), step.arguments.size());
  for (const AddressSlot& slot : step.addresses) {
    const void* address = address_of(slot.buffer, pointers);
    std::memcpy(parameters.data() + slot.at, &address, sizeof address);
  }
  for (const MapSlot& slot : step.maps) {
    const CUtensorMap map = encode(driver, plan_, slot.map, address_of(slot.map.buffer, pointers));
    std::memcpy(parameters.data() + slot.at, &map, sizeof map);
  }
  std::size_t bytes = step.arguments.size();
  std::array<void*, 5> extra{CU_LAUNCH_PARAM_BUFFER_POINTER, parameters.data(),
                             CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
  // A kernel with descriptors does not read its first parameter at offset 0 (sm_90: at 48, so that
  // its address is a multiple of 64): the driver places each parameter.
  std::array<void*, kMaxArgumentBytes / 4> each;
  if (!step.maps.empty()) addresses_of(*step.variant, parameters.data(), each.data());
  CONVT_CHECK_PLAN(driver, plan_, cuLaunchKernel, function, step.grid.x, step.grid.y, step.grid.z,
                   32 * step.variant->warps, 1, 1, image_of(step).shared_bytes, stream,
                   step.maps.empty() ? nullptr : each.data(),
                   step.maps.empty() ? extra.data() : nullptr);
}

void Launch::operator()(const Pointers& pointers, CUstream_st* stream) const {
  if (plan_.workspace_bytes > 0 && !pointers.workspace)
    throw DriverError("convt: the plan needs " + std::to_string(plan_.workspace_bytes) +
                      " bytes of workspace, got a null pointer: " + plan_.str());
  const ContextGuard context(Driver::get(), device_);
  for (std::size_t i = 0; i < functions_.size(); ++i)
    run(plan_.steps[i], functions_[i], pointers, stream);
}

bool Launch::is_on_current_device() const { return is_current(Driver::get(), device_); }

void launch(const Plan& plan, const Pointers& pointers, int device, CUstream_st* stream) {
  Launch(plan, device)(pointers, stream);
}

int preload(int device) {
  const Gpu& gpu = device_gpu(device);
  const Driver& driver = Driver::get();
  const ContextGuard context(driver, device);
  records_for(gpu);  // sorts the measured times, which takes milliseconds
  int count = 0;
  for (const Variant& variant : variants())
    if (variant.image(gpu.image.arch, gpu.image.kind)) {
      Plan plan;
      plan.gpu = gpu;
      plan.reason = "preload";
      load(driver, plan,
           {.variant = &variant,
            .image = gpu.image,
            .grid = {},
            .arguments = {},
            .addresses = {},
            .maps = {}},
           device);
      ++count;
    }
  return count;
}

}  // namespace convt
