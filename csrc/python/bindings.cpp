// Python's view of the core: problems, GPUs, configs, plans, and launches on raw addresses. Tensors
// pass in eager.cpp only (pybind11 is tied to one Python, the registered op is not).
#include <pybind11/operators.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <tuple>

#include "convt/launch.hpp"
#include "convt/plan.hpp"
#include "convt/records.hpp"
#include "dispatch/aten.hpp"
#include "python/describe.hpp"

namespace convt {
namespace {

using PairTuple = std::tuple<std::int64_t, std::int64_t>;

template <class Enum>
Enum parse(const std::string& text, const char* what, std::initializer_list<Enum> values) {
  for (const Enum value : values)
    if (text == name(value)) return value;
  throw py::value_error(std::string("unknown ") + what + ": " + text);
}

ImageKind parse_kind(const std::string& text) {
  if (text != "cubin" && text != "ptx") throw py::value_error("unknown image kind: " + text);
  return text == "cubin" ? ImageKind::cubin : ImageKind::ptx;
}

Config parse_config(const std::string& text) {
  if (const std::optional<Config> config = Config::parse(text)) return *config;
  throw py::value_error("no such config: " + text);
}

// (sizes, strides, dtype, 16-byte aligned)
using Sizes = std::vector<std::int64_t>;
using Desc = std::tuple<Sizes, Sizes, std::string, bool>;

// Borrows from `desc`.
TensorDesc borrow(const Desc& desc) {
  const auto& [sizes, strides, dtype, aligned] = desc;
  if (sizes.size() != strides.size()) throw py::value_error("sizes and strides differ in length");
  return {sizes.data(), strides.data(), static_cast<std::int64_t>(sizes.size()),
          parse(dtype, "dtype", {DType::f32, DType::f16, DType::bf16, DType::other}), aligned};
}

// `geometry`: the op's list.
Problem problem_of(const Desc& input, const Desc& weight, const std::optional<Desc>& bias,
                   const Sizes& geometry, const std::string& precision) {
  const Settings settings(static_cast<int>(geometry.size() / 4), geometry);
  const Precision how =
      parse(precision, "precision", {Precision::fp32, Precision::tf32, Precision::fp16});
  const TensorDesc bias_desc = bias ? borrow(*bias) : TensorDesc{};
  return Problem::of(borrow(input), borrow(weight), bias ? &bias_desc : nullptr, settings, how);
}

// One number of each axis that the caller gave.
py::tuple numbers(const Problem& problem, std::int64_t (*number)(const Axis&)) {
  const std::array<const Axis*, 3> axes{&problem.d, &problem.h, &problem.w};
  py::tuple out(problem.dims);
  for (int i = 0; i < problem.dims; ++i)
    out[static_cast<std::size_t>(i)] =
        number(*axes[static_cast<std::size_t>(i + 3 - problem.dims)]);
  return out;
}

// A cubin, or PTX text, as it is embedded.
py::bytes image_of(const std::string& variant_name, int arch, const std::string& kind) {
  for (const Variant& variant : variants())
    if (variant.name == variant_name)
      if (const Image* image = variant.image(arch, parse_kind(kind)))
        return {reinterpret_cast<const char*>(image->data.data()), image->data.size()};
  throw py::key_error("no " + kind + " of " + variant_name + " for sm_" + std::to_string(arch));
}

py::list candidates_of(const Problem& problem, const Gpu& gpu) {
  py::list out;
  for (const Candidate& candidate : candidates(problem, gpu))
    out.append(py::make_tuple(candidate.config.str(), candidate.microseconds));
  return out;
}

void launch_at(const Plan& plan, const std::array<std::uintptr_t, 5>& addresses, int device,
               std::uintptr_t stream) {
  const auto address = [&](std::size_t i) { return reinterpret_cast<void*>(addresses[i]); };
  const Pointers pointers{address(0), address(1), address(2), address(3), address(4)};
  const py::gil_scoped_release others_may_run;
  launch(plan, pointers, device, reinterpret_cast<CUstream_st*>(stream));
}

#define CONVT_AXIS_NUMBER(number) \
  [](const Problem& p) { return numbers(p, [](const Axis& a) { return a.number; }); }

void bind_problem(py::module_& m) {
  py::class_<Problem>(m, "Problem")
      .def_readonly("dims", &Problem::dims)
      .def_readonly("batch", &Problem::batch)
      .def_readonly("in_channels", &Problem::in_channels)
      .def_readonly("out_channels", &Problem::out_channels)
      .def_readonly("bias", &Problem::bias)
      .def_readonly("aligned", &Problem::aligned)
      .def_readonly("groups", &Problem::groups)
      .def_property_readonly("input_size", CONVT_AXIS_NUMBER(in))
      .def_property_readonly("output_size", CONVT_AXIS_NUMBER(out()))
      .def_property_readonly("kernel_size", CONVT_AXIS_NUMBER(kernel))
      .def_property_readonly("stride", CONVT_AXIS_NUMBER(stride))
      .def_property_readonly("padding", CONVT_AXIS_NUMBER(padding))
      .def_property_readonly("output_padding", CONVT_AXIS_NUMBER(output_padding))
      .def_property_readonly("dilation", CONVT_AXIS_NUMBER(dilation))
      .def_property_readonly("dtype", [](const Problem& p) { return name(p.dtype()); })
      .def_property_readonly("layout", [](const Problem& p) { return name(p.layout); })
      .def_property_readonly("precision", [](const Problem& p) { return name(p.precision()); })
      .def_property_readonly("math", [](const Problem& p) { return name(p.math); })
      .def_property_readonly("needed_precision",
                             [](const Problem& p) { return name(precision_of(p.needed_math())); })
      .def_readonly("weight_strides", &Problem::weight)
      .def_property_readonly("weight_is_packed", &Problem::weight_is_packed)
      .def("with_packed_weight", &Problem::with_packed_weight)
      .def(
          "with_weight",
          [](const Problem& p, const Desc& weight) { return p.with_weight(borrow(weight)); },
          py::arg("weight"))
      .def_property_readonly("min_bytes", &Problem::min_bytes)
      .def_property_readonly("flops", &Problem::flops)
      .def(py::self == py::self)
      .def("__repr__", &Problem::str);
}

void bind_gpu(py::module_& m) {
  py::class_<Gpu>(m, "Gpu")
      .def_static(
          "preset",
          [](const std::string& wanted) {
            if (const auto gpu = Gpu::preset(wanted)) return *gpu;
            throw py::value_error("unknown GPU: " + wanted + " (known: " + Gpu::presets() +
                                  ", and architectures like sm_89)");
          },
          py::arg("name"))
      .def_static("none", [] { return Gpu{}; })
      .def_static("presets", &Gpu::presets)
      .def_readonly("name", &Gpu::name)
      .def_readonly("arch", &Gpu::arch)
      .def_property_readonly(
          "image",
          [](const Gpu& g) { return py::make_tuple(g.image.arch, kind_name(g.image.kind)); })
      .def_readonly("multiprocessors", &Gpu::multiprocessors)
      .def_readonly("shared_kib", &Gpu::shared_kib)
      .def_readonly("threads", &Gpu::threads)
      .def_readonly("registers", &Gpu::registers)
      .def_readonly("bandwidth", &Gpu::bandwidth)
      .def_readonly("clock", &Gpu::clock)
      .def(
          "with_image",
          [](const Gpu& gpu, int arch, const std::string& kind) {
            return gpu.with_image({arch, parse_kind(kind)});
          },
          py::arg("arch"), py::arg("kind") = "cubin")
      .def("floor_us", &Gpu::floor_us, py::arg("problem"))
      .def(
          "rate", [](const Gpu& gpu, const Problem& problem) { return gpu.rate(problem.math); },
          py::arg("problem"))
      .def(py::self == py::self)
      .def("__repr__", &Gpu::str);
}

void bind_plan(py::module_& m) {
  py::class_<Plan>(m, "Plan")
      .def_readonly("problem", &Plan::problem)
      .def_readonly("gpu", &Plan::gpu)
      .def_readonly("reason", &Plan::reason)
      .def_readonly("microseconds", &Plan::microseconds)
      .def_readonly("workspace_bytes", &Plan::workspace_bytes)
      .def_property_readonly("served", &Plan::served)
      .def_property_readonly("config", [](const Plan& p) { return p.config.str(); })
      .def_property_readonly("variant",
                             [](const Plan& p) -> std::optional<std::string> {
                               if (!p.served()) return std::nullopt;
                               return std::string(p.config.variant->name);
                             })
      .def_property_readonly("steps",
                             [](const Plan& p) {
                               py::list out;
                               for (const Step& step : p.steps) out.append(describe(step));
                               return out;
                             })
      .def_property_readonly("grid",
                             [](const Plan& p) {
                               const Grid grid = p.served() ? p.main().grid : Grid{0, 1, 1};
                               return py::make_tuple(grid.x, grid.y, grid.z);
                             })
      .def_property_readonly("resident", [](const Plan& p) { return p.served() ? resident(p) : 0; })
      .def_property_readonly(
          "arguments",
          [](const Plan& p) { return p.served() ? arguments_of(p.main()) : py::dict(); })
      .def_property_readonly("best",
                             [](const Plan& p) {
                               py::list out;
                               for (const Candidate& c : p.best)
                                 out.append(py::make_tuple(c.config.str(), c.microseconds));
                               return out;
                             })
      .def("__repr__", &Plan::str);
}

// (problem, config, microseconds, ATen's microseconds)
using Row = std::tuple<Problem, std::string, double, double>;

std::vector<Record> records_of(const std::vector<Row>& rows) {
  std::vector<Record> records;
  for (const auto& [problem, config, us, aten] : rows)
    records.push_back({problem, config, us, aten});
  return records;
}

void bind_records(py::module_& m) {
  py::class_<Records>(m, "Records")
      .def(py::init([](const Gpu& gpu, const std::vector<Row>& rows) {
             const std::vector<Record> records = records_of(rows);
             std::vector<const Record*> pointers;
             for (const Record& record : records) pointers.push_back(&record);
             return Records(gpu, pointers);
           }),
           py::arg("gpu"), py::arg("rows"))
      .def("__len__", &Records::size);
  m.def("records_for", &records_for, py::arg("gpu"), py::return_value_policy::reference);
  m.def(
      "add_table",
      [](const std::string& device, int arch, const std::string& proxy, const std::string& source,
         const std::vector<Row>& rows) {
        add_table({device, arch, proxy, source, records_of(rows)});
      },
      py::arg("device"), py::arg("arch"), py::arg("proxy"), py::arg("source"), py::arg("rows"));
  m.def(
      "tables_for",
      [](const Gpu& gpu) {
        py::list out;
        for (const Table* table : tables_for(gpu))
          out.append(py::dict(py::arg("device") = table->device, py::arg("arch") = table->arch,
                              py::arg("proxy") = table->proxy, py::arg("source") = table->source,
                              py::arg("records") = table->records.size()));
        return out;
      },
      py::arg("gpu"));
  m.def("aten_features", &aten_features, py::arg("problem"), py::arg("gpu"));
  m.attr("aten_launch_us") = kAtenLaunchUs;
}

}  // namespace
}  // namespace convt

PYBIND11_MODULE(_C, m) {
  using namespace convt;
  m.doc() = "Plans, variants and raw launches of convt's precompiled kernels.";
  // Subclasses of RuntimeError, which is what torch raises for the same mistakes.
  py::register_exception<InvalidArgument>(m, "InvalidArgument", PyExc_RuntimeError);
  py::register_exception<DriverError>(m, "DriverError", PyExc_RuntimeError);
  bind_problem(m);
  bind_gpu(m);
  bind_records(m);
  bind_plan(m);
  m.def("problem_of", &problem_of, py::arg("input"), py::arg("weight"), py::arg("bias"),
        py::arg("geometry"), py::arg("precision"));
  m.def("candidates", &candidates_of, py::arg("problem"), py::arg("gpu"));
  m.def(
      "plan",
      [](const Problem& problem, const Gpu& gpu, const Records* records) {
        return plan(problem, gpu, records ? *records : records_for(gpu));
      },
      py::arg("problem"), py::arg("gpu"), py::arg("records") = nullptr);
  m.def(
      "plan_with",
      [](const Problem& problem, const Gpu& gpu, const std::string& config) {
        return plan_with(problem, gpu, parse_config(config));
      },
      py::arg("problem"), py::arg("gpu"), py::arg("config"));
  m.def(
      "plan_pack",
      [](const Desc& weight, const Gpu& gpu) { return plan_pack(borrow(weight), gpu); },
      py::arg("weight"), py::arg("gpu"));
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
  m.def(
      "select_target",
      [](int arch, int force_arch, bool allow_jit) {
        const Target target = select_target(arch, force_arch, allow_jit);
        return py::make_tuple(target.arch, kind_name(target.kind));
      },
      py::arg("arch"), py::arg("force_arch") = 0, py::arg("allow_jit") = true);
  m.def("device_count", &device_count);
  m.def("device_arch", &device_arch, py::arg("device"));
  m.def("device_gpu", &device_gpu, py::arg("device"));
  m.def("preload", &preload, py::arg("device"), py::call_guard<py::gil_scoped_release>());
  m.def("launch", &launch_at, py::arg("plan"), py::arg("addresses"), py::arg("device"),
        py::arg("stream") = 0);
}
