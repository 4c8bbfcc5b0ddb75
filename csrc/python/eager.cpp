// convt._eager: calls that nothing but Python made, past torch's dispatcher and its 3 us. Tensors
// come by DLPack's C exchange API, 20 ns each; memory by torch's own Python functions, whose errors
// (torch.OutOfMemoryError) keep their type, which torch's C shims take from them. All that needs
// more than kernels is left to the caller.
#include <ATen/dlpack.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <span>
#include <tuple>
#include <utility>

#include "run/answer.hpp"

namespace py = pybind11;

namespace convt {
namespace {

// What is asked of torch. Lives as long as the process.
struct Torch {
  py::object tensor, parameter, float32, float16, bfloat16, uint8;
  py::object empty_strided;   // (sizes, strides, dtype) on the current device
  py::object fp32_precision;  // (backend, kind) -> "tf32" or another
  py::tuple questions;        // any yes: the call is not for here
  const DLPackExchangeAPI* api = nullptr;
  py::str cuda{"cuda"}, tf32{"tf32"};
  PyObject* is_neg = PyUnicode_InternFromString("is_neg");
  PyObject* version = PyUnicode_InternFromString("_version");
};
Torch* torch = nullptr;

DType dtype_of(DLDataType type) {
  if (type.lanes != 1) return DType::other;
  if (type.code == kDLBfloat && type.bits == 16) return DType::bf16;
  if (type.code != kDLFloat) return DType::other;
  return type.bits == 32 ? DType::f32 : type.bits == 16 ? DType::f16 : DType::other;
}

// A tensor of Python's, borrowed; or nothing for None.
struct View {
  DLTensor tensor{};
  bool given = false;

  // Whether `object` is None, or a tensor of torch's own type in CUDA memory that is what it says.
  bool of(PyObject* object) {
    if (object == Py_None) return true;
    const auto type = reinterpret_cast<PyObject*>(Py_TYPE(object));
    if (type != torch->tensor.ptr() && type != torch->parameter.ptr()) return false;
    if (torch->api->dltensor_from_py_object_no_sync(object, &tensor) != 0) {
      PyErr_Clear();
      return false;
    }
    given = true;
    return tensor.device.device_type == kDLCUDA;
  }
  void* data() const {
    return given ? static_cast<char*>(tensor.data) + tensor.byte_offset : nullptr;
  }
  Facts facts() const {
    if (!given) return {};
    return Facts::of(tensor.ndim, tensor.shape, tensor.strides, dtype_of(tensor.dtype), data());
  }
  // Of one dtype on one device.
  bool is_like(const View& other) const {
    return !given || (tensor.dtype.code == other.tensor.dtype.code &&
                      tensor.dtype.bits == other.tensor.dtype.bits &&
                      tensor.dtype.lanes == other.tensor.dtype.lanes &&
                      tensor.device.device_id == other.tensor.device.device_id);
  }
};

bool is_true(const py::object& answer) {
  if (!answer) throw py::error_already_set();
  return answer.ptr() != Py_False && answer.ptr() != Py_None && PyObject_IsTrue(answer.ptr()) != 0;
}

// A negative view says the opposite of its memory.
bool is_neg(PyObject* tensor) {
  return is_true(
      py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(tensor, torch->is_neg)));
}

// Whether nothing traces, casts, differentiates, intercepts or watches ops.
bool is_plain() {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(torch->questions.ptr()); ++i) {
    PyObject* question = PyTuple_GET_ITEM(torch->questions.ptr(), i);
    if (is_true(py::reinterpret_steal<py::object>(PyObject_CallNoArgs(question)))) return false;
  }
  return true;
}

// A value of convt::Precision, or the name of torch's switch that tells it.
std::int64_t read_precision(PyObject* precision) {
  if (PyLong_CheckExact(precision)) return PyLong_AsLongLong(precision);
  const std::array<PyObject*, 2> arguments{torch->cuda.ptr(), precision};
  const auto answer = py::reinterpret_steal<py::object>(
      PyObject_Vectorcall(torch->fp32_precision.ptr(), arguments.data(), 2, nullptr));
  if (!answer) throw py::error_already_set();
  return static_cast<std::int64_t>(answer.equal(torch->tf32) ? Precision::tf32 : Precision::fp32);
}

py::tuple tuple(std::span<const std::int64_t> numbers) {
  py::tuple result(numbers.size());
  for (std::size_t i = 0; i < numbers.size(); ++i)
    PyTuple_SET_ITEM(result.ptr(), static_cast<Py_ssize_t>(i), PyLong_FromLongLong(numbers[i]));
  return result;
}

// Memory on the current device, and where it is.
std::pair<py::object, void*> allocate(std::span<const std::int64_t> sizes,
                                      std::span<const std::int64_t> strides,
                                      const py::object& dtype) {
  const py::tuple size = tuple(sizes), stride = tuple(strides);
  const std::array<PyObject*, 3> arguments{size.ptr(), stride.ptr(), dtype.ptr()};
  auto tensor = py::reinterpret_steal<py::object>(
      PyObject_Vectorcall(torch->empty_strided.ptr(), arguments.data(), 3, nullptr));
  View view;
  if (!tensor) throw py::error_already_set();
  if (!view.of(tensor.ptr())) throw std::runtime_error("convt: torch allocated no CUDA memory");
  return {std::move(tensor), view.data()};
}

// All that DLPack tells of a tensor: where it is, its dtype, sizes and strides.
using Words = std::array<std::int64_t, 4 + 2 * 8>;
Words words_of(const DLTensor& tensor) {
  Words words{};
  words[0] =
      reinterpret_cast<std::int64_t>(tensor.data) + static_cast<std::int64_t>(tensor.byte_offset);
  words[1] = static_cast<std::int64_t>(tensor.device.device_type) << 32 | tensor.device.device_id;
  words[2] = tensor.dtype.code << 24 | tensor.dtype.bits << 16 | tensor.dtype.lanes;
  words[3] = tensor.ndim;
  const std::int32_t count = std::min(tensor.ndim, 8);
  std::copy_n(tensor.shape, count, &words[4]);
  std::copy_n(tensor.strides, count, &words[4 + 8]);
  return words;
}

// convt.freezing.Frozen, a tuple, borrowed; the caller checks its first field.
struct Frozen {
  PyObject *version, *words, *packed;

  static bool of(PyObject* object, Frozen& frozen) {
    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) != 5) return false;
    const auto item = [&](Py_ssize_t i) { return PyTuple_GET_ITEM(object, i); };
    frozen = {item(1), item(2), item(4)};
    return PyBytes_Check(frozen.words) && PyBytes_GET_SIZE(frozen.words) == sizeof(Words);
  }
  // Whether torch shows no change of the weight since it was packed.
  bool is_of(PyObject* weight, const DLTensor& tensor) const {
    const Words now = words_of(tensor);
    if (std::memcmp(now.data(), PyBytes_AS_STRING(words), sizeof now) != 0) return false;
    if (version == Py_None) return true;  // of an inference tensor: it has none
    const auto current =
        py::reinterpret_steal<py::object>(PyObject_GetAttr(weight, torch->version));
    if (!current) throw py::error_already_set();
    return PyObject_RichCompareBool(current.ptr(), version, Py_EQ) == 1;
  }
};

// The op's list, in a tuple of ints for two or three axes.
bool read(PyObject* tuple, Settings& settings) {
  constexpr std::size_t kMost = 4 * 3 + 1;
  if (!PyTuple_CheckExact(tuple)) return false;
  const auto count = static_cast<std::size_t>(PyTuple_GET_SIZE(tuple));
  if (count != 9 && count != kMost) return false;
  std::array<std::int64_t, kMost> numbers;
  for (std::size_t i = 0; i < count; ++i)
    numbers[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, static_cast<Py_ssize_t>(i)));
  if (PyErr_Occurred()) return PyErr_Clear(), false;
  settings = {static_cast<int>(count / 4), {numbers.data(), count}};
  return true;
}

std::shared_ptr<const Answer> find_answer(const Signature& signature) {
  if (auto known = known_answer(signature)) [[likely]]
    return known;
  const py::gil_scoped_release others_may_run;
  return answer(signature);
}

// A tensor; None if the caller has to look after something first; False if ATen answers.
py::object conv_transpose(PyObject* const* arguments) {
  const auto [input, weight, bias, kept, geometry, precision] =
      reinterpret_cast<PyObject* const(&)[6]>(*arguments);
  View x, w, b, p;
  Settings settings;
  if (!x.of(input) || !w.of(weight) || !x.given || !w.given || !b.of(bias) || !w.is_like(x) ||
      !b.is_like(x) || !read(geometry, settings) || x.tensor.ndim != settings.dims + 2 ||
      !is_plain())
    return py::none();
  Frozen frozen;
  if (Frozen::of(kept, frozen) && frozen.is_of(weight, w.tensor) &&
      (!p.of(frozen.packed) || !p.is_like(x)))
    return py::none();
  const std::shared_ptr<const Answer> answer = find_answer({.input = x.facts(),
                                                            .weight = w.facts(),
                                                            .bias = b.facts(),
                                                            .packed = p.facts(),
                                                            .settings = settings,
                                                            .precision = read_precision(precision),
                                                            .device = x.tensor.device.device_id});
  if (!answer->launch) return py::bool_(false);
  if (!answer->x_ready || !answer->bias_ready || !x.tensor.data ||
      !answer->launch->is_on_current_device() || is_neg(input) || (!p.given && is_neg(weight)) ||
      (b.given && is_neg(bias)))
    return py::none();

  const DType dtype = answer->problem.dtype();
  constexpr std::int64_t kOne = 1;
  py::object workspace;
  Pointers pointers{.x = x.data(), .weight = p.given ? p.data() : w.data(), .bias = b.data()};
  if (const std::int64_t bytes = answer->workspace_bytes())
    std::tie(workspace, pointers.workspace) = allocate({&bytes, 1}, {&kOne, 1}, torch->uint8);
  py::object output;
  const auto ndim = static_cast<std::size_t>(answer->ndim());
  std::tie(output, pointers.y) =
      allocate({answer->sizes.data(), ndim}, {answer->strides.data(), ndim},
               dtype == DType::f32   ? torch->float32
               : dtype == DType::f16 ? torch->float16
                                     : torch->bfloat16);
  void* stream = nullptr;
  if (torch->api->current_work_stream(kDLCUDA, x.tensor.device.device_id, &stream) != 0)
    throw py::error_already_set();
  const py::gil_scoped_release others_may_run;
  (*answer->launch)(pointers, static_cast<CUstream_st*>(stream));
  return output;
}

// Runs `function` as Python wants its functions: errors set, not thrown.
template <class Function>
PyObject* guarded(const Function& function) {
  try {
    if (!torch) Py_RETURN_NONE;
    return function().release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

PyObject* call(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 6) return PyErr_SetString(PyExc_TypeError, "expected 6 arguments"), nullptr;
  return guarded([&] { return conv_transpose(arguments); });
}

// For the third field of convt.freezing.Frozen; None where DLPack cannot describe the tensor.
PyObject* facts(PyObject*, PyObject* tensor) {
  return guarded([&]() -> py::object {
    DLTensor view;
    if (torch->api->dltensor_from_py_object_no_sync(tensor, &view) != 0)
      return PyErr_Clear(), py::none();
    const Words words = words_of(view);
    return py::bytes(reinterpret_cast<const char*>(words.data()), sizeof words);
  });
}

// is_of(frozen, weight): whether calls will use it.
PyObject* is_of(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 2) return PyErr_SetString(PyExc_TypeError, "expected 2 arguments"), nullptr;
  return guarded([&]() -> py::object {
    Frozen frozen;
    DLTensor view;
    if (!Frozen::of(arguments[0], frozen)) return py::bool_(false);
    if (torch->api->dltensor_from_py_object_no_sync(arguments[1], &view) != 0)
      return PyErr_Clear(), py::bool_(false);
    return py::bool_(frozen.is_of(arguments[1], view));
  });
}

// Returns whether this torch has what eager calls need.
bool use_torch(const py::module_& module, const py::object& parameter,
               const py::object& empty_strided, const py::object& fp32_precision,
               const py::tuple& questions) {
  const py::object tensor = module.attr("Tensor");
  if (!py::hasattr(tensor, "__dlpack_c_exchange_api__")) return false;
  const auto api =
      py::capsule(tensor.attr("__dlpack_c_exchange_api__")).get_pointer<const DLPackExchangeAPI>();
  if (api->header.version.major != DLPACK_MAJOR_VERSION || !api->dltensor_from_py_object_no_sync)
    return false;
  torch = new Torch{tensor,
                    parameter,
                    module.attr("float32"),
                    module.attr("float16"),
                    module.attr("bfloat16"),
                    module.attr("uint8"),
                    empty_strided,
                    fp32_precision,
                    questions,
                    api};
  return true;
}

template <class Function>
PyCFunction as_c_function(Function* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

// Not by pybind11, whose calls take 0.2 us.
PyMethodDef methods[] = {{"conv_transpose", as_c_function(&call), METH_FASTCALL, nullptr},
                         {"facts", &facts, METH_O, nullptr},
                         {"is_of", as_c_function(&is_of), METH_FASTCALL, nullptr},
                         {}};

}  // namespace
}  // namespace convt

PYBIND11_MODULE(_eager, m) {
  m.def("use_torch", &convt::use_torch, py::arg("torch"), py::arg("parameter"),
        py::arg("empty_strided"), py::arg("fp32_precision"), py::arg("questions"));
  m.def("answers_planned", &convt::answers_planned);
  if (PyModule_AddFunctions(m.ptr(), convt::methods) != 0) throw py::error_already_set();
}
