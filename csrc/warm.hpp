// _C.warm_conv_transpose2d: a module's warm calls on CUDA, past torch's dispatcher and its 3 us.
#pragma once

#include <pybind11/pybind11.h>

namespace convt {

void bind_warm(pybind11::module_& m);

}  // namespace convt
