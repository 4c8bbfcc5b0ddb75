// A stand-in for libcuda.so.1: prints every call to the file FAKE_CUDA_LOG, pretends to have
// FAKE_CUDA_DEVICES devices of capability FAKE_CUDA_ARCH, and fails the call FAKE_CUDA_FAIL with
// error FAKE_CUDA_ERROR. The parameter buffer of a launch is printed in hexadecimal.
#include <cuda.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int number(const char* name, int otherwise) {
  const char* text = getenv(name);
  return text ? atoi(text) : otherwise;
}

static CUresult call(const char* name, const char* format, ...) {
  FILE* log = fopen(getenv("FAKE_CUDA_LOG"), "a");
  va_list arguments;
  va_start(arguments, format);
  fprintf(log, "%s ", name);
  vfprintf(log, format, arguments);
  fprintf(log, "\n");
  va_end(arguments);
  fclose(log);
  const char* failing = getenv("FAKE_CUDA_FAIL");
  return failing && !strcmp(failing, name) ? (CUresult)number("FAKE_CUDA_ERROR", 999)
                                           : CUDA_SUCCESS;
}

static int current = 0;

CUresult cuInit(unsigned flags) { return call("cuInit", "%u", flags); }
CUresult cuGetErrorName(CUresult error, const char** text) {
  (void)error;
  *text = "CUDA_ERROR_FAKE";
  return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char** text) {
  (void)error;
  *text = "a fake error";
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int* count) {
  *count = number("FAKE_CUDA_DEVICES", 2);
  return call("cuDeviceGetCount", "");
}
CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  *device = ordinal;
  return ordinal < number("FAKE_CUDA_DEVICES", 2) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  const int arch = number("FAKE_CUDA_ARCH", 89);
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      *value = arch / 10;
      break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      *value = arch % 10;
      break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      *value = number("FAKE_CUDA_MULTIPROCESSORS", 128);
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
      *value = 100 * 1024;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
      *value = 1536;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:
      *value = 65536;
      break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:  // kHz
      *value = 10501000;
      break;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:  // bits
      *value = 384;
      break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:  // kHz
      *value = 2520000;
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  return call("cuDeviceGetAttribute", "%d %d", attribute, device);
}
CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  snprintf(name, (size_t)length, "%s", "Fake GPU");
  return call("cuDeviceGetName", "%d", device);
}
// The first words of a fake descriptor are what it was made of.
CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank,
                                void* address, const cuuint64_t* sizes, const cuuint64_t* strides,
                                const cuuint32_t* box, const cuuint32_t* steps,
                                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  (void)steps, (void)interleave, (void)promotion, (void)fill;
  map->opaque[0] = (cuuint64_t)(size_t)address;
  return call("cuTensorMapEncodeTiled", "%d %u %zu %zu %zu %u %d", type, rank, (size_t)address,
              (size_t)sizes[0], (size_t)strides[0], box[0], swizzle);
}
CUresult cuCtxGetDevice(CUdevice* device) {
  *device = current;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  *context = (CUcontext)(size_t)(device + 1);
  return call("cuDevicePrimaryCtxRetain", "%d", device);
}
CUresult cuCtxPushCurrent(CUcontext context) {
  current = (int)(size_t)context - 1;
  return call("cuCtxPushCurrent", "%d", current);
}
CUresult cuCtxPopCurrent(CUcontext* context) {
  *context = NULL;
  const CUresult result = call("cuCtxPopCurrent", "%d", current);
  current = 0;
  return result;
}
CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  static CUstreamCaptureMode now = CU_STREAM_CAPTURE_MODE_GLOBAL;
  const CUstreamCaptureMode old = now;
  now = *mode;
  *mode = old;
  return call("cuThreadExchangeStreamCaptureMode", "%d", now);
}
CUresult cuLibraryLoadData(CUlibrary* library, const void* code, CUjit_option* jit_options,
                           void** jit_values, unsigned jit_count, CUlibraryOption* library_options,
                           void** library_values, unsigned library_count) {
  (void)jit_options, (void)jit_values, (void)library_options, (void)library_values;
  *library = (CUlibrary)code;
  return call("cuLibraryLoadData", "%.3s %u %u", (const char*)code + (*(const char*)code == 127),
              jit_count, library_count);
}
CUresult cuLibraryGetKernel(CUkernel* kernel, CUlibrary library, const char* name) {
  *kernel = (CUkernel)library;
  return call("cuLibraryGetKernel", "%s", name);
}
CUresult cuKernelGetFunction(CUfunction* function, CUkernel kernel) {
  *function = (CUfunction)kernel;
  return call("cuKernelGetFunction", "on %d", current);
}
CUresult cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel kernel,
                              CUdevice device) {
  (void)kernel;
  return call("cuKernelSetAttribute", "%d %d on %d", attribute, value, device);
}
CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                        CUstream stream, void** parameters, void** extra) {
  (void)function;
  if (parameters || extra[0] != CU_LAUNCH_PARAM_BUFFER_POINTER ||
      extra[2] != CU_LAUNCH_PARAM_BUFFER_SIZE || extra[4] != CU_LAUNCH_PARAM_END)
    return CUDA_ERROR_INVALID_VALUE;
  const unsigned char* buffer = extra[1];
  char text[8192] = "";
  for (size_t i = 0; i < *(size_t*)extra[3]; ++i) snprintf(text + 2 * i, 3, "%02x", buffer[i]);
  return call("cuLaunchKernel", "%u %u %u | %u %u %u | %u | %zu | on %d | %s", grid_x, grid_y,
              grid_z, block_x, block_y, block_z, shared, (size_t)stream, current, text);
}
