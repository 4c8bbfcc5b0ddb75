// torch's DLPack exchange API with one lie: that tensors on the CPU are on CUDA device 0.
#include <ATen/dlpack.h>
#include <stddef.h>

static const DLPackExchangeAPI* torch;
static DLPackExchangeAPI fake;

static int view(void* object, DLTensor* tensor) {
  const int result = torch->dltensor_from_py_object_no_sync(object, tensor);
  if (tensor->device.device_type == kDLCPU) tensor->device = (DLDevice){kDLCUDA, 0};
  return result;
}

static int stream(DLDeviceType type, int32_t index, void** stream) {
  (void)type, (void)index;
  *stream = (void*)77;
  return 0;
}

const DLPackExchangeAPI* fake_exchange_api(const DLPackExchangeAPI* real) {
  torch = real;
  fake = *real;
  fake.dltensor_from_py_object_no_sync = view;
  fake.current_work_stream = stream;
  return &fake;
}
