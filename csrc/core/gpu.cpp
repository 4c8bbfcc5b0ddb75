#include "convt/gpu.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "core/text.hpp"

namespace convt {
namespace {

// Columns, from NVIDIA's data sheets: name, capability, multiprocessors, KiB of shared memory a
// multiprocessor, threads a multiprocessor, GB/s, boost GHz. The first row of an architecture is
// its usual product.
struct Product {
  const char* name;
  int arch, multiprocessors, shared_kib, threads;
  double bandwidth, clock;
};

constexpr std::array kProducts{
    Product{"A100", 80, 108, 164, 2048, 2039, 1.41},
    Product{"A30", 80, 56, 164, 2048, 933, 1.44},
    Product{"RTX 3090 Ti", 86, 84, 100, 1536, 1008, 1.86},
    Product{"RTX 3090", 86, 82, 100, 1536, 936, 1.70},
    Product{"RTX 3080", 86, 68, 100, 1536, 760, 1.71},
    Product{"RTX 3060", 86, 28, 100, 1536, 360, 1.78},
    Product{"A10", 86, 72, 100, 1536, 600, 1.70},
    Product{"RTX 4090", 89, 128, 100, 1536, 1008, 2.52},
    Product{"RTX 4080", 89, 76, 100, 1536, 717, 2.51},
    Product{"RTX 4070", 89, 46, 100, 1536, 504, 2.48},
    Product{"RTX 4060", 89, 24, 100, 1536, 272, 2.46},
    Product{"L4", 89, 58, 100, 1536, 300, 2.04},
    Product{"L40S", 89, 142, 100, 1536, 864, 2.52},
    Product{"H200", 90, 132, 228, 2048, 4800, 1.98},
    Product{"H100", 90, 132, 228, 2048, 3350, 1.98},
    Product{"B200", 100, 148, 228, 2048, 8000, 1.97},
    Product{"RTX 5090", 120, 170, 100, 1536, 1792, 2.41},
    Product{"RTX 5080", 120, 84, 100, 1536, 960, 2.62},
    Product{"RTX 5060", 120, 30, 100, 1536, 448, 2.50},
};

// Flops of one multiprocessor in one clock: dense fp16 products summed in fp32. TF32 has half as
// many.
double tensor_flops(int arch) noexcept {
  switch (arch) {
    case 80:
      return 2048;
    case 90:
      return 4096;
    case 100:
      return 8192;
    default:  // 86, 89, 120
      return 512;
  }
}

// "NVIDIA GeForce RTX 4090" -> "rtx4090"
std::string plain(std::string_view name) {
  std::string out;
  for (const char c : name)
    if (c != ' ' && c != '_') out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const std::string_view maker : {"nvidia", "geforce"})
    if (const auto at = out.find(maker); at != std::string::npos) out.erase(at, maker.size());
  return out;
}

Gpu gpu_of(const Product& product, int arch) {
  return {.name = product.name,
          .arch = arch,
          .image = select_target(arch, 0, true),
          .multiprocessors = product.multiprocessors,
          .shared_kib = product.shared_kib,
          .threads = product.threads,
          .bandwidth = product.bandwidth,
          .clock = product.clock};
}

}  // namespace

double Gpu::rate(Math math) const noexcept {
  const double tensor = tensor_flops(arch) * multiprocessors * clock * 1e-3;
  switch (math) {
    case Math::f16:
    case Math::bf16:
    case Math::fp16:
      return tensor;
    case Math::tf32:
      return tensor / 2;
    case Math::fp32:  // three TF32 products
      return tensor / 6;
    case Math::other:
      break;
  }
  return 256.0 * multiprocessors * clock * 1e-3;
}

std::int64_t Gpu::resident(const Image& image, std::uint32_t warps) const noexcept {
  const std::uint32_t used = (32 * image.registers + 255) / 256 * 256 * warps;
  const std::int64_t programs = std::min<std::int64_t>(
      {registers / used, shared_kib * 1024 / (static_cast<std::int64_t>(image.shared_bytes) + 1024),
       threads / (32 * warps)});
  return std::max<std::int64_t>(programs, 1) * multiprocessors;
}

double Gpu::floor_us(const Problem& problem) const noexcept {
  return std::max(memory_us(static_cast<double>(problem.min_bytes())),
                  math_us(problem.flops(), problem.math));
}

Gpu Gpu::with_image(const Target& target) const {
  Gpu gpu = *this;
  gpu.image = target;
  return gpu;
}

std::string Gpu::str() const {
  if (arch == 0) return "no GPU";
  std::string out = text(name.empty() ? "GPU" : name, " (sm_", arch, ", ", multiprocessors,
                         " multiprocessors, ", static_cast<std::int64_t>(bandwidth), " GB/s)");
  if (image.arch == 0)
    append(out, ", for which this build has no kernels");
  else if (image.kind == ImageKind::ptx)
    append(out, text(", sm_", image.arch, " PTX, which the driver compiles at first use"));
  else if (image.arch != arch)
    append(out, text(", sm_", image.arch, " kernels"));
  return out;
}

std::optional<Gpu> Gpu::preset(std::string_view name) {
  std::string wanted = plain(name);
  if (wanted.starts_with("sm")) wanted.erase(0, 2);
  for (const Product& product : kProducts)
    if (wanted == plain(product.name)) return gpu_of(product, product.arch);
  int arch = 0;
  const char* end = wanted.data() + wanted.size();
  const auto [stop, error] = std::from_chars(wanted.data(), end, arch);
  if (error != std::errc{} || stop != end || arch <= 0) return std::nullopt;
  // An unknown architecture is taken for the newest known one below it.
  const Product* usual = kProducts.data();
  for (const Product& product : kProducts)
    if (product.arch <= arch && product.arch > usual->arch) usual = &product;
  Gpu gpu = gpu_of(*usual, arch);
  if (usual->arch != arch) gpu.name.clear();
  return gpu;
}

bool Gpu::same_product(std::string_view a, std::string_view b) { return plain(a) == plain(b); }

std::string Gpu::presets() {
  std::string out;
  for (const Product& product : kProducts) append(out, text(out.empty() ? "" : ", ", product.name));
  return out;
}

Target select_target(int arch, int force_arch, bool allow_jit) noexcept {
  const auto allowed = [&](int candidate) { return !force_arch || candidate == force_arch; };
  // sm_8x code runs on later 8.x; from 9.0 on Triton emits architecture-specific (sm_90a) code.
  const auto loads = [&](int candidate) {
    return candidate == arch || (arch < 90 && candidate / 10 == arch / 10 && candidate < arch);
  };
  Target target;
  for (const int candidate : architectures(ImageKind::cubin))
    if (allowed(candidate) && loads(candidate)) target = {candidate, ImageKind::cubin};
  if (target.arch == 0 && allow_jit)
    for (const int candidate : architectures(ImageKind::ptx))
      if (allowed(candidate) && candidate <= arch) target = {candidate, ImageKind::ptx};
  return target;
}

}  // namespace convt
