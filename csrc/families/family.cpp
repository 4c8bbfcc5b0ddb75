#include "families/family.hpp"

#include <cstring>
#include <stdexcept>

#include "core/registry_data.hpp"
#include "core/text.hpp"

namespace convt {

const Family* family_of(const Variant& variant) noexcept {
  for (const auto& [name, rules] : kFamilies)
    if (name == variant.symbol) return rules;
  return nullptr;
}

bool vectors_fit(const Problem& problem) noexcept {
  if (problem.group_out() % lanes(problem) != 0) return false;
  return problem.layout == Layout::nchw ||
         (problem.aligned && problem.group_in() % lanes(problem) == 0);
}

const char* too_large(const Problem& problem) noexcept {
  const auto over = [](std::int64_t value) { return value > kInt32 / 2; };
  const auto axis_over = [&](const Axis& a) {
    return over(a.in) || over(a.padding) || over(a.dilation) || over(a.out() + 2 * a.padding) ||
           over(a.dilation * a.kernel);
  };
  if (over(problem.batch) || over(problem.in_channels) || over(problem.out_channels) ||
      over(problem.taps()) || axis_over(problem.d) || axis_over(problem.h) || axis_over(problem.w))
    return "a size is over 2^30";
  return nullptr;
}

const char* has_depth(const Problem& problem) noexcept {
  return problem.d == Axis{} ? nullptr : "it has three dimensions";
}

const Variant* find_variant(std::string_view symbol, Math math, Layout layout,
                            const Gpu& gpu) noexcept {
  for (const Variant& variant : variants())
    if (variant.symbol == symbol && variant.math == math && variant.layout == layout &&
        variant.image(gpu.image.arch, gpu.image.kind))
      return &variant;
  return nullptr;
}

const Parameter* ArgumentWriter::take(std::string_view name, bool pointer, bool map) {
  if (position_ == variant_.parameters.size() || variant_.parameters[position_].name != name)
    return nullptr;  // a constant of this variant
  const Parameter& parameter = variant_.parameters[position_++];
  if ((parameter.type == ParamType::pointer) != pointer ||
      (parameter.type == ParamType::tensormap) != map)
    throw std::logic_error(text("convt: ", variant_.name, ": ", name, " is of another type"));
  return &parameter;
}

std::uint32_t ArgumentWriter::append(const void* value, std::size_t size, std::size_t alignment) {
  std::vector<std::byte>& bytes = step_.arguments;
  const std::size_t at = (bytes.size() + alignment - 1) / alignment * alignment;
  bytes.resize(at + size);
  if (value) std::memcpy(bytes.data() + at, value, size);  // the machine is little-endian
  return static_cast<std::uint32_t>(at);
}

void ArgumentWriter::operator()(std::string_view name, const Buffer& buffer) {
  if (take(name, true, false))
    step_.addresses.push_back({.at = append(nullptr, 8, 8), .buffer = buffer});
}

void ArgumentWriter::operator()(std::string_view name, std::int64_t value) {
  const Parameter* parameter = take(name, false, false);
  if (!parameter) return;
  const bool narrow = parameter->type == ParamType::i32;
  if (narrow && (value > kInt32 || value < -kInt32 - 1))
    throw std::logic_error(
        text("convt: ", variant_.name, ": ", name, " does not fit 32 bits: ", value));
  append(&value, narrow ? 4 : 8, narrow ? 4 : 8);
}

void ArgumentWriter::operator()(std::string_view name, const TensorMap& map) {
  const Parameter* parameter = take(name, false, true);
  if (!parameter) return;
  if (map.rank != parameter->rank)
    throw std::logic_error(text("convt: ", variant_.name, ": ", name, " has rank ", parameter->rank,
                                ", not ", map.rank));
  step_.maps.push_back({.at = append(nullptr, 128, 64), .map = map});
  for (int dim = 0; dim < map.rank; ++dim) {
    const auto size = static_cast<std::int32_t>(map.sizes[static_cast<std::size_t>(dim)]);
    append(&size, 4, 4);
  }
  for (int dim = 0; dim < map.rank; ++dim)
    append(&map.strides[static_cast<std::size_t>(dim)], 8, 8);
}

void ArgumentWriter::finish() {
  if (position_ != variant_.parameters.size())
    throw std::logic_error(
        text("convt: ", variant_.name, ": no argument for ", variant_.parameters[position_].name));
  append(nullptr, 8, 8);
  append(nullptr, 8, 8);
}

}  // namespace convt
