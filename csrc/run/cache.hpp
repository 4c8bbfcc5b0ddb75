// A set-associative table that keeps what was used last. Internal.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace convt {

// A table of kSets x kWays values, whose key is `Value::signature`. A full set drops its least
// recently used value; values are shared, so that one may be dropped while it is in use. Not safe
// for two threads.
template <class Value, std::size_t kSets, std::size_t kWays>
class Cache {
 public:
  using Shared = std::shared_ptr<const Value>;

  // Null if there is none.
  template <class Signature>
  Shared find(std::uint64_t hash, const Signature& signature) {
    for (Entry& entry : sets_[hash % kSets])
      if (entry.value && entry.hash == hash && entry.value->signature == signature) {
        entry.used = ++clock_;
        return entry.value;
      }
    return nullptr;
  }

  void insert(std::uint64_t hash, Shared value) {
    auto& set = sets_[hash % kSets];
    auto& oldest = *std::min_element(
        set.begin(), set.end(), [](const Entry& a, const Entry& b) { return a.used < b.used; });
    oldest = {hash, ++clock_, std::move(value)};
  }

 private:
  struct Entry {
    std::uint64_t hash = 0, used = 0;  // 0: free
    Shared value;
  };
  std::array<std::array<Entry, kWays>, kSets> sets_{};
  std::uint64_t clock_ = 0;
};

}  // namespace convt
