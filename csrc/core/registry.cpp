#include "convt/registry.hpp"

#include "core/registry_data.hpp"

namespace convt {

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
