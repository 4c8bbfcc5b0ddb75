// Python's view of the core: problems, plans, variants and launches on raw addresses. Tensors pass
// in warm.cpp only (pybind11 is tied to one Python, the registered op is not).
#include <pybind11/eval.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <tuple>

#include "convt/launch.hpp"
#include "convt/plan.hpp"
#include "convt/problem.hpp"
#include "convt/registry.hpp"

namespace py = pybind11;
using namespace convt;

namespace {

using Sizes = std::vector<std::int64_t>;
using PairTuple = std::tuple<std::int64_t, std::int64_t>;
// (sizes, strides, dtype, 16-byte aligned)
using Desc = std::tuple<Sizes, Sizes, std::string, bool>;

template <class Enum>
Enum parse(const std::string& text, const char* what, std::initializer_list<Enum> values) {
  for (const Enum value : values)
    if (text == name(value)) return value;
  throw py::value_error(std::string("unknown ") + what + ": " + text);
}

DType parse_dtype(const std::string& text) {
  return parse(text, "dtype", {DType::f32, DType::f16, DType::bf16, DType::other});
}

ImageKind parse_kind(const std::string& text) {
  if (text != "cubin" && text != "ptx") throw py::value_error("unknown image kind: " + text);
  return text == "cubin" ? ImageKind::cubin : ImageKind::ptx;
}

const char* name(ImageKind kind) { return kind == ImageKind::cubin ? "cubin" : "ptx"; }

// Borrows from `desc`.
TensorDesc borrow(const Desc& desc) {
  const auto& [sizes, strides, dtype, aligned] = desc;
  if (sizes.size() != strides.size()) throw py::value_error("sizes and strides differ in length");
  return {sizes.data(), strides.data(), static_cast<std::int64_t>(sizes.size()), parse_dtype(dtype),
          aligned};
}

Pair pair(const PairTuple& tuple) { return {std::get<0>(tuple), std::get<1>(tuple)}; }
PairTuple tuple(const Pair& pair) { return {pair.h, pair.w}; }

Problem problem_of(const Desc& input, const Desc& weight, const std::optional<Desc>& bias,
                   const PairTuple& stride, const PairTuple& padding,
                   const PairTuple& output_padding, const PairTuple& dilation, std::int64_t groups,
                   const std::string& precision) {
  const Geometry geometry{pair(stride), pair(padding), pair(output_padding), pair(dilation),
                          groups};
  const TensorDesc bias_desc = bias ? borrow(*bias) : TensorDesc{};
  return Problem::of(
      borrow(input), borrow(weight), bias ? &bias_desc : nullptr, geometry,
      parse(precision, "precision", {Precision::fp32, Precision::tf32, Precision::fp16}));
}

Plan plan_pack_of(const Desc& weight, const Target& target) {
  return plan_pack(borrow(weight), target);
}

py::dict arguments_of(const Plan& plan) {
  py::dict values;
  if (plan.variant)
    for (const Parameter& parameter : plan.variant->parameters)
      if (parameter.type != ParamType::pointer)
        values[py::str(std::string(name(parameter.param)))] =
            plan.arguments[static_cast<std::size_t>(parameter.param)];
  return values;
}

py::dict describe(const Variant& variant) {
  py::list parameters, images;
  py::dict constants;
  constexpr const char* kTypes[] = {"pointer", "i32", "i64"};
  for (const Parameter& parameter : variant.parameters)
    parameters.append(py::make_tuple(std::string(name(parameter.param)),
                                     kTypes[static_cast<int>(parameter.type)]));
  for (const Constant& constant : variant.constants)
    constants[py::str(std::string(constant.name))] = py::eval(std::string(constant.value));
  for (const Image& image : variant.images)
    images.append(py::dict(py::arg("arch") = image.arch, py::arg("kind") = name(image.kind),
                           py::arg("shared_bytes") = image.shared_bytes,
                           py::arg("registers") = image.registers));
  return py::dict(
      py::arg("name") = std::string(variant.name), py::arg("symbol") = std::string(variant.symbol),
      py::arg("family") = std::string(name(variant.family)), py::arg("dtype") = name(variant.dtype),
      py::arg("precision") = name(variant.precision), py::arg("layout") = name(variant.layout),
      py::arg("aligned") = variant.aligned, py::arg("wide") = variant.wide,
      py::arg("warps") = variant.warps, py::arg("parameters") = parameters,
      py::arg("constants") = constants, py::arg("images") = images);
}

// A cubin, or PTX text, as it is embedded.
py::bytes image_of(const std::string& variant_name, int arch, const std::string& kind) {
  for (const Variant& variant : variants())
    if (variant.name == variant_name)
      if (const Image* image = variant.image(arch, parse_kind(kind)))
        return {reinterpret_cast<const char*>(image->data.data()), image->data.size()};
  throw py::key_error("no " + kind + " of " + variant_name + " for sm_" + std::to_string(arch));
}

void launch_at(const Plan& plan, std::uintptr_t x, std::uintptr_t weight, std::uintptr_t bias,
               std::uintptr_t y, int device, std::uintptr_t stream) {
  launch(plan,
         {reinterpret_cast<const void*>(x), reinterpret_cast<const void*>(weight),
          reinterpret_cast<const void*>(bias), reinterpret_cast<void*>(y)},
         device, reinterpret_cast<CUstream_st*>(stream));
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Plans, variants and raw launches of convt's precompiled kernels.";
  // Subclasses of RuntimeError, which is what torch raises for the same mistakes.
  py::register_exception<InvalidArgument>(m, "InvalidArgument", PyExc_RuntimeError);
  py::register_exception<DriverError>(m, "DriverError", PyExc_RuntimeError);

  py::class_<Target>(m, "Target")
      .def(py::init(
               [](int arch, const std::string& kind) { return Target{arch, parse_kind(kind)}; }),
           py::arg("arch"), py::arg("kind") = "cubin")
      .def_readonly("arch", &Target::arch)
      .def_property_readonly("kind", [](const Target& t) { return name(t.kind); })
      .def("__repr__", [](const Target& t) {
        return "Target(arch=" + std::to_string(t.arch) + ", kind='" + name(t.kind) + "')";
      });

  py::class_<Problem>(m, "Problem")
      .def_readonly("batch", &Problem::batch)
      .def_readonly("in_channels", &Problem::in_channels)
      .def_readonly("out_channels", &Problem::out_channels)
      .def_readonly("bias", &Problem::bias)
      .def_readonly("aligned", &Problem::aligned)
      .def_property_readonly("groups", [](const Problem& p) { return p.geometry.groups; })
      .def_property_readonly("input_size", [](const Problem& p) { return tuple(p.in); })
      .def_property_readonly("output_size", [](const Problem& p) { return tuple(p.out()); })
      .def_property_readonly("kernel_size", [](const Problem& p) { return tuple(p.kernel); })
      .def_property_readonly("stride", [](const Problem& p) { return tuple(p.geometry.stride); })
      .def_property_readonly("padding", [](const Problem& p) { return tuple(p.geometry.padding); })
      .def_property_readonly("output_padding",
                             [](const Problem& p) { return tuple(p.geometry.output_padding); })
      .def_property_readonly("dilation",
                             [](const Problem& p) { return tuple(p.geometry.dilation); })
      .def_property_readonly("dtype", [](const Problem& p) { return name(p.dtype); })
      .def_property_readonly("layout", [](const Problem& p) { return name(p.layout); })
      .def_property_readonly("precision", [](const Problem& p) { return name(p.precision); })
      .def_property_readonly("needed_precision",
                             [](const Problem& p) { return name(p.needed_precision()); })
      .def_property_readonly("min_bytes", &Problem::min_bytes)
      .def_property_readonly("flops", &Problem::flops)
      .def("__eq__", [](const Problem& a, const Problem& b) { return a == b; })
      .def("__repr__", &Problem::str);

  py::class_<Plan>(m, "Plan")
      .def_readonly("problem", &Plan::problem)
      .def_readonly("target", &Plan::target)
      .def_readonly("reason", &Plan::reason)
      .def_property_readonly("served", [](const Plan& p) { return p.variant != nullptr; })
      .def_property_readonly("variant",
                             [](const Plan& p) -> std::optional<std::string> {
                               if (!p.variant) return std::nullopt;
                               return std::string(p.variant->name);
                             })
      .def_property_readonly(
          "grid", [](const Plan& p) { return py::make_tuple(p.grid.x, p.grid.y, p.grid.z); })
      .def_readonly("resident", &Plan::resident)
      .def_property_readonly("arguments", &arguments_of)
      .def("__repr__", &Plan::str);

  m.def("problem_of", &problem_of, py::arg("input"), py::arg("weight"), py::arg("bias"),
        py::arg("stride"), py::arg("padding"), py::arg("output_padding"), py::arg("dilation"),
        py::arg("groups"), py::arg("precision"));
  m.def("plan", &plan, py::arg("problem"), py::arg("target"));
  m.def("plan_pack", &plan_pack_of, py::arg("weight"), py::arg("target"));
  m.def("variants", [] {
    py::list all;
    for (const Variant& variant : variants()) all.append(describe(variant));
    return all;
  });
  m.def("image", &image_of, py::arg("variant"), py::arg("arch"), py::arg("kind"));
  m.def("architectures", [](const std::string& kind) {
    const auto archs = architectures(parse_kind(kind));
    return std::vector<int>(archs.begin(), archs.end());
  });
  m.def("select_target", &select_target, py::arg("arch"), py::arg("force_arch") = 0,
        py::arg("allow_jit") = true);
  m.def("device_count", &device_count);
  m.def("device_arch", &device_arch, py::arg("device"));
  m.def("device_target", &device_target, py::arg("device"));
  m.def("preload", &preload, py::arg("device"), py::call_guard<py::gil_scoped_release>());
  m.def("launch", &launch_at, py::arg("plan"), py::arg("x"), py::arg("weight"), py::arg("bias"),
        py::arg("y"), py::arg("device"), py::arg("stream") = 0,
        py::call_guard<py::gil_scoped_release>());
}
