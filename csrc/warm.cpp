// convt._warm: a module's warm calls on CUDA, past torch's dispatcher and its 3 us. Tensors come by
// DLPack's C exchange API, 20 ns each. What is known to need nothing but a kernel is launched; all
// else, mistakes included, is left to the op.
#include <ATen/dlpack.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>

#include "convt/launch.hpp"
#include "convt/plan.hpp"
#include "facts.hpp"

namespace py = pybind11;

namespace convt {
namespace {

// What is asked of torch. Lives as long as the process.
struct Torch {
  py::object tensor, empty_strided;
  const DLPackExchangeAPI* api = nullptr;
  PyObject* is_neg = PyUnicode_InternFromString("is_neg");
};
Torch* torch = nullptr;

// A tensor of Python's, borrowed.
struct View {
  DLTensor tensor{};
  // Whether `object` is a tensor that lies in CUDA memory.
  bool of(PyObject* object) {
    if (torch->api->dltensor_from_py_object_no_sync(object, &tensor) == 0)
      return tensor.device.device_type == kDLCUDA;
    PyErr_Clear();
    return false;
  }
  char* data() const { return static_cast<char*>(tensor.data) + tensor.byte_offset; }
  Facts facts() const {
    Facts facts{.ndim = tensor.ndim,
                .dtype = tensor.dtype.code << 16 | tensor.dtype.bits << 8 | tensor.dtype.lanes,
                .device_type = tensor.device.device_type,
                .device_index = tensor.device.device_id,
                .aligned = reinterpret_cast<std::uintptr_t>(data()) % 16 == 0};
    const int count = std::min(tensor.ndim, 4);
    std::copy_n(tensor.shape, count, facts.sizes.begin());
    std::copy_n(tensor.strides, count, facts.strides.begin());
    return facts;
  }
};

TensorDesc describe(const Facts& facts) {
  const auto code = [](int kind, int bits) { return kind << 16 | bits << 8 | 1; };
  return {
      .sizes = facts.sizes.data(),
      .strides = facts.strides.data(),
      .ndim = facts.ndim,
      .dtype = facts.dtype == code(kDLFloat, 32)    ? DType::f32
               : facts.dtype == code(kDLFloat, 16)  ? DType::f16
               : facts.dtype == code(kDLBfloat, 16) ? DType::bf16
                                                    : DType::other,
      .aligned = facts.aligned,
  };
}

// How calls of one signature are answered.
struct Answer {
  Signature signature;
  std::optional<Launch> launch;  // none: by the op
  py::object sizes, strides, dtype;
};

// Nothing if a call of this signature needs a copy, an error message or ATen.
std::optional<Launch> launch_for(const Signature& call) {
  const auto& [input, weight, bias, packed, geometry, precision] = call;
  for (const Facts* other : {&weight, &packed, &bias})
    if (other->ndim >= 0 &&
        (other->dtype != input.dtype || other->device_type != input.device_type ||
         other->device_index != input.device_index))
      return {};
  if (packed.ndim != weight.ndim) return {};
  try {
    const TensorDesc bias_desc = describe(bias);
    const Problem problem =
        Problem::of(describe(input), describe(weight), bias.ndim < 0 ? nullptr : &bias_desc,
                    geometry, static_cast<Precision>(precision))
            .with_weight(describe(packed));
    if (packed.ndim != 4 || packed.sizes != weight.sizes || !packed.is_dense(Layout::nhwc) ||
        !packed.aligned || !input.is_dense(problem.layout) ||
        (bias.ndim == 1 && bias.strides[0] != 1 && bias.sizes[0] != 1) ||
        problem.output_numel() == 0)
      return {};
    const Plan chosen = plan(problem, device_gpu(input.device_index));
    if (chosen.served() && chosen.workspace_bytes == 0) return Launch(chosen, input.device_index);
  } catch (const std::exception&) {  // the op tells it better
  }
  return {};
}

std::shared_ptr<const Answer> answer(const Signature& signature, py::handle input) {
  const auto answer = std::make_shared<Answer>(signature, launch_for(signature));
  if (!answer->launch) return answer;
  const Problem& problem = answer->launch->plan().problem;
  const Pair out = problem.out();
  const Dims sizes{problem.batch, problem.out_channels, out.h, out.w};
  const Dims strides = dense_strides(sizes, problem.layout);
  answer->sizes = py::make_tuple(sizes[0], sizes[1], sizes[2], sizes[3]);
  answer->strides = py::make_tuple(strides[0], strides[1], strides[2], strides[3]);
  answer->dtype = input.attr("dtype");
  return answer;
}

// The latest answers; guarded by the GIL, never destroyed. Shared, as a launch gives the GIL up.
const std::shared_ptr<const Answer>& remembered_answer(const Signature& signature,
                                                       py::handle input) {
  using Answers = std::array<std::shared_ptr<const Answer>, 256>;
  static Answers& answers = *new Answers;
  auto& slot = answers[signature.hash() % answers.size()];
  if (!slot || slot->signature != signature) [[unlikely]]
    slot = answer(signature, input);
  return slot;
}

py::object conv_transpose2d(PyObject* const* arguments) {
  const auto [input, weight, address, packed, bias, numbers] =
      reinterpret_cast<PyObject* const(&)[6]>(*arguments);
  View x, w, p, b;
  if (Py_TYPE(input) != reinterpret_cast<PyTypeObject*>(torch->tensor.ptr()) || !x.of(input) ||
      !w.of(weight) || !p.of(packed) || (bias != Py_None && !b.of(bias)))
    return py::none();
  std::array<std::int64_t, 11> n;
  if (!PyBytes_Check(numbers) || PyBytes_GET_SIZE(numbers) != sizeof n)
    throw py::value_error("expected numbers to be 11 of 64 bits");
  std::memcpy(n.data(), PyBytes_AS_STRING(numbers), sizeof n);
  const Signature signature{x.facts(),
                            w.facts(),
                            bias == Py_None ? Facts{} : b.facts(),
                            p.facts(),
                            {{n[0], n[1]}, {n[2], n[3]}, {n[4], n[5]}, {n[6], n[7]}, n[8]},
                            n[9]};
  // `packed` was made of a weight in this very memory and order.
  if (w.data() != PyLong_AsVoidPtr(address) ||
      signature.weight.strides !=
          dense_strides(signature.weight.sizes, n[10] ? Layout::nhwc : Layout::nchw))
    return py::none();
  const std::shared_ptr<const Answer> answer = remembered_answer(signature, input);
  if (!answer->launch || !answer->launch->is_on_current_device()) return py::none();
  // A negative view says the opposite of its memory.
  const auto is_neg =
      py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(input, torch->is_neg));
  if (is_neg.ptr() != Py_False || !x.tensor.data) return py::none();

  const std::array<PyObject*, 3> empty{answer->sizes.ptr(), answer->strides.ptr(),
                                       answer->dtype.ptr()};
  auto output = py::reinterpret_steal<py::object>(
      PyObject_Vectorcall(torch->empty_strided.ptr(), empty.data(), empty.size(), nullptr));
  if (!output) throw py::error_already_set();
  View y;
  void* stream = nullptr;
  if (!y.of(output.ptr()) || y.tensor.device.device_id != x.tensor.device.device_id)
    return py::none();
  if (torch->api->current_work_stream(kDLCUDA, x.tensor.device.device_id, &stream) != 0)
    throw py::error_already_set();
  const py::gil_scoped_release others_may_run;
  (*answer->launch)({.x = x.data(),
                     .weight = p.data(),
                     .bias = bias == Py_None ? nullptr : b.data(),
                     .y = y.data()},
                    static_cast<CUstream_st*>(stream));
  return output;
}

PyObject* call(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (!torch || count != 6) Py_RETURN_NONE;
  try {
    return conv_transpose2d(arguments).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

// `empty_strided(sizes, strides, dtype)` makes a tensor on the current CUDA device.
void use_tensors(py::object tensor, py::object empty_strided) {
  if (!py::hasattr(tensor, "__dlpack_c_exchange_api__")) return;
  const auto api =
      py::capsule(tensor.attr("__dlpack_c_exchange_api__")).get_pointer<const DLPackExchangeAPI>();
  if (api->header.version.major != DLPACK_MAJOR_VERSION || !api->dltensor_from_py_object_no_sync)
    return;
  torch = new Torch{tensor, empty_strided, api};
}

// Not by pybind11, whose calls take 0.2 us.
PyMethodDef methods[] = {
    {"conv_transpose2d", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call)),
     METH_FASTCALL, nullptr},
    {}};

}  // namespace
}  // namespace convt

PYBIND11_MODULE(_warm, m) {
  m.def("use_tensors", &convt::use_tensors, py::arg("tensor"), py::arg("empty_strided"));
  if (PyModule_AddFunctions(m.ptr(), convt::methods) != 0) throw py::error_already_set();
}
