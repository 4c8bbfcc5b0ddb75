#include "convt/registry.hpp"

#include "registry_data.hpp"

namespace convt {

std::string_view name(Param param) noexcept {
  static constexpr std::string_view kNames[] = {
#define CONVT_PARAM(name) #name,
      CONVT_PARAMS(CONVT_PARAM)
#undef CONVT_PARAM
  };
  return kNames[static_cast<std::size_t>(param)];
}

std::string_view name(Family family) noexcept {
  switch (family) {
    case Family::phase:
      return "phase";
    case Family::pack:
      return "pack";
    case Family::pixel_shuffle:
      return "pixel_shuffle";
    case Family::pixel_shuffle_shallow:
      return "pixel_shuffle_shallow";
    case Family::single_tap_nchw:
      return "single_tap_nchw";
    case Family::single_tap_nhwc:
      return "single_tap_nhwc";
  }
  return "?";
}

const Image* Variant::image(int arch, ImageKind kind) const noexcept {
  for (const Image& image : images)
    if (image.arch == arch && image.kind == kind) return &image;
  return nullptr;
}

std::span<const Variant> variants() noexcept { return kVariants; }

std::span<const int> architectures(ImageKind kind) noexcept {
  return kArchitectures[static_cast<std::size_t>(kind)];
}

}  // namespace convt
