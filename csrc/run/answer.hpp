// How calls of one signature are answered on CUDA, remembered for the op and for eager calls alike.
// Internal.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "convt/export.hpp"
#include "convt/launch.hpp"
#include "run/facts.hpp"

namespace convt {

struct Answer {
  Signature signature;
  Problem problem;
  Dims sizes{}, strides{};  // of the output
  std::int64_t ndim() const { return problem.dims + 2; }
  std::optional<Launch> launch;  // none: ATen answers, or the output is empty
  // Operands that can be read where they are; the others have to be made dense first. The weight
  // is `packed` if that is given, and always can.
  bool x_ready = false, bias_ready = false;
  std::int64_t workspace_bytes() const noexcept {
    return launch ? launch->plan().workspace_bytes : 0;
  }
};

// What this thread or another knows already, without a lock; or null.
CONVT_EXPORT std::shared_ptr<const Answer> known_answer(const Signature& signature);

// Plans if nobody has. Throws InvalidArgument for bad input, DriverError.
CONVT_EXPORT std::shared_ptr<const Answer> answer(const Signature& signature);

// How many answers were planned in this process: more than once a signature is waste.
CONVT_EXPORT std::int64_t answers_planned() noexcept;

}  // namespace convt
