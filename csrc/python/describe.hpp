// Values of the core as Python's dicts.
#pragma once

#include <pybind11/pybind11.h>

#include "convt/plan.hpp"

namespace py = pybind11;

namespace convt {

inline const char* kind_name(ImageKind kind) { return kind == ImageKind::cubin ? "cubin" : "ptx"; }

// Values of a step's integer arguments by name, as they lie in its argument bytes.
py::dict arguments_of(const Step& step);

// variant, grid, arguments, addresses {name: (role, offset)}, maps {name: dict}
py::dict describe(const Step& step);

py::dict describe(const Variant& variant);

// Programs of the plan's main step that run at once.
std::int64_t resident(const Plan& plan);

}  // namespace convt
