#pragma once

#include "convt/export.hpp"

namespace convt {

// Does nothing; whoever calls it has the library that registers the op in its process.
CONVT_EXPORT void require_torch_op() noexcept;

}  // namespace convt
