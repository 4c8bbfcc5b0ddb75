#include "python/describe.hpp"

#include <pybind11/stl.h>

#include <cstring>

namespace convt {
namespace {

py::str text(std::string_view view) { return {view.data(), view.size()}; }

const char* role_name(Role role) {
  constexpr const char* kNames[] = {"none", "input", "weight", "bias", "output", "workspace"};
  return kNames[static_cast<std::size_t>(role)];
}

py::tuple describe(const Buffer& buffer) {
  return py::make_tuple(role_name(buffer.role), buffer.offset);
}

py::dict describe(const TensorMap& map) {
  py::list sizes, strides, box;
  for (std::size_t i = 0; i < static_cast<std::size_t>(map.rank); ++i) {
    sizes.append(map.sizes[i]);
    strides.append(map.strides[i]);
    box.append(map.box[i]);
  }
  return py::dict(py::arg("buffer") = describe(map.buffer), py::arg("sizes") = sizes,
                  py::arg("strides") = strides, py::arg("box") = box,
                  py::arg("element") = name(map.element), py::arg("swizzle") = map.swizzle);
}

// Calls f(parameter, offset) for each parameter, whose bytes begin there.
void each_parameter(const Step& step, auto&& f) {
  std::size_t end = 0;
  const auto place = [&](std::size_t size, std::size_t alignment) {
    const std::size_t at = (end + alignment - 1) / alignment * alignment;
    end = at + size;
    return at;
  };
  for (const Parameter& parameter : step.variant->parameters) {
    const bool map = parameter.type == ParamType::tensormap;
    const std::size_t size = map ? 128 : parameter.type == ParamType::i32 ? 4 : 8;
    f(parameter, place(size, map ? 64 : size));
    for (int i = 0; i < parameter.rank; ++i) place(4, 4);
    for (int i = 0; i < parameter.rank; ++i) place(8, 8);
  }
}

}  // namespace

py::dict arguments_of(const Step& step) {
  py::dict values;
  each_parameter(step, [&](const Parameter& parameter, std::size_t at) {
    if (parameter.type == ParamType::i32) {
      std::int32_t value = 0;
      std::memcpy(&value, step.arguments.data() + at, sizeof value);
      values[text(parameter.name)] = value;
    } else if (parameter.type == ParamType::i64) {
      std::int64_t value = 0;
      std::memcpy(&value, step.arguments.data() + at, sizeof value);
      values[text(parameter.name)] = value;
    }
  });
  return values;
}

py::dict describe(const Step& step) {
  py::dict addresses, maps;
  each_parameter(step, [&](const Parameter& parameter, std::size_t at) {
    for (const AddressSlot& slot : step.addresses)
      if (slot.at == at) addresses[text(parameter.name)] = describe(slot.buffer);
    for (const MapSlot& slot : step.maps)
      if (slot.at == at) maps[text(parameter.name)] = describe(slot.map);
  });
  return py::dict(py::arg("variant") = text(step.variant->name),
                  py::arg("grid") = py::make_tuple(step.grid.x, step.grid.y, step.grid.z),
                  py::arg("arguments") = arguments_of(step), py::arg("addresses") = addresses,
                  py::arg("maps") = maps,
                  py::arg("bytes") = py::bytes(reinterpret_cast<const char*>(step.arguments.data()),
                                               step.arguments.size()));
}

py::dict describe(const Variant& variant) {
  py::list parameters, images;
  py::dict constants, traits;
  constexpr const char* kTypes[] = {"pointer", "i32", "i64", "tensormap"};
  for (const Parameter& parameter : variant.parameters)
    parameters.append(py::make_tuple(
        text(parameter.name), kTypes[static_cast<std::size_t>(parameter.type)], parameter.rank));
  for (const Constant& constant : variant.constants) {
    const py::str name = text(constant.name);
    if (constant.type == ConstantType::text)
      constants[name] = text(constant.text);
    else if (constant.type == ConstantType::boolean)
      constants[name] = py::bool_(constant.number != 0);
    else
      constants[name] = constant.number;
  }
  for (const Trait& trait : variant.traits) traits[text(trait.name)] = trait.value;
  for (const Image& image : variant.images)
    images.append(py::dict(py::arg("arch") = image.arch, py::arg("kind") = kind_name(image.kind),
                           py::arg("shared_bytes") = image.shared_bytes,
                           py::arg("registers") = image.registers));
  return py::dict(
      py::arg("name") = text(variant.name), py::arg("symbol") = text(variant.symbol),
      py::arg("family") = text(variant.family), py::arg("math") = name(variant.math),
      py::arg("dtype") = name(dtype_of(variant.math)),
      py::arg("precision") = name(precision_of(variant.math)),
      py::arg("layout") = name(variant.layout),
      py::arg("weight") = variant.weight == WeightOrder::torch ? "torch" : "channels_last",
      py::arg("warps") = variant.warps, py::arg("parameters") = parameters,
      py::arg("constants") = constants, py::arg("traits") = traits, py::arg("images") = images);
}

std::int64_t resident(const Plan& plan) {
  const Step& step = plan.main();
  const Image& image = *step.variant->image(step.image.arch, step.image.kind);
  return plan.gpu.resident(image, step.variant->warps);
}

}  // namespace convt
