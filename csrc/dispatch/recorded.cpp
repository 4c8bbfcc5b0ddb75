#include "dispatch/recorded.hpp"

#include "dispatch/aten.hpp"
#include "dispatch/build.hpp"

namespace convt {

double recorded_packing_us(const Config& config, const Problem& problem, const Gpu& gpu) noexcept {
  const bool packs =
      config.variant->weight == WeightOrder::channels_last && problem.layout == Layout::nchw;
  return packs ? packing_us(problem, gpu) : 0.0;
}

double modelled_us(const Config& config, const Problem& problem, const Gpu& gpu) {
  if (config.is_aten()) return aten_us(problem, gpu);
  return family_of(*config.variant)->microseconds(config, problem, gpu) +
         recorded_packing_us(config, problem, gpu);
}

}  // namespace convt
