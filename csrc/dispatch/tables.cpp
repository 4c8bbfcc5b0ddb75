#include "dispatch/tables.hpp"

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "convt/records.hpp"

namespace convt {
namespace {

// Leaked on purpose: plans may be asked for while the process ends.
struct State {
  std::mutex mutex;
  std::deque<Table> tables;  // never moved or dropped; the latest first
  std::map<std::pair<std::string, int>, std::unique_ptr<const Records>> indices;
  std::deque<std::unique_ptr<const Records>> outdated;  // somebody may be reading them
};

Axis axis_of(const std::int32_t (&numbers)[6]) {
  return {.in = numbers[0],
          .kernel = numbers[1],
          .stride = numbers[2],
          .padding = numbers[3],
          .output_padding = numbers[4],
          .dilation = numbers[5]};
}

Table table_of(const CompiledTable& compiled) {
  Table table{.device = compiled.device,
              .arch = compiled.arch,
              .proxy = compiled.proxy,
              .source = {},
              .records = {}};
  for (const CompiledRecord& record : compiled.records) {
    Problem problem;
    problem.batch = record.batch;
    problem.in_channels = record.in_channels;
    problem.out_channels = record.out_channels;
    problem.groups = record.groups;
    problem.d = axis_of(record.axes[0]);
    problem.h = axis_of(record.axes[1]);
    problem.w = axis_of(record.axes[2]);
    problem.math = record.math;
    problem.layout = record.layout;
    problem.bias = record.bias;
    table.records.push_back({.problem = problem,
                             .config = record.config,
                             .microseconds = record.microseconds,
                             .aten_microseconds = record.aten_microseconds});
  }
  return table;
}

State& state() {
  static State* const state = [] {
    auto* made = new State;
    for (const CompiledTable& compiled : kCompiledTables)
      made->tables.push_back(table_of(compiled));
    return made;
  }();
  return *state;
}

std::atomic<std::uint64_t> generation{0};

std::vector<const Table*> holding(const State& state, const Gpu& gpu) {
  std::vector<const Table*> same, others;
  for (const Table& table : state.tables)
    if (table.arch == gpu.image.arch)
      (Gpu::same_product(table.device, gpu.name) ? same : others).push_back(&table);
  std::vector<const Table*>& chosen = same.empty() ? others : same;
  const auto is_real = [](const Table* table) { return table->proxy.empty(); };
  if (std::ranges::any_of(chosen, is_real))
    std::erase_if(chosen, [&](const Table* table) { return !is_real(table); });
  return std::move(chosen);
}

}  // namespace

void add_table(Table table) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  all.tables.push_front(std::move(table));
  for (auto& [key, records] : all.indices) all.outdated.push_back(std::move(records));
  all.indices.clear();
  generation.fetch_add(1, std::memory_order_release);
}

std::uint64_t tables_generation() noexcept { return generation.load(std::memory_order_acquire); }

std::vector<const Table*> tables_for(const Gpu& gpu) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  return holding(all, gpu);
}

const Records& records_for(const Gpu& gpu) {
  State& all = state();
  const std::lock_guard lock(all.mutex);
  std::unique_ptr<const Records>& records = all.indices[{gpu.name, gpu.image.arch}];
  if (!records) {
    std::vector<const Record*> found;
    for (const Table* table : holding(all, gpu))
      for (const Record& record : table->records) found.push_back(&record);
    records = std::make_unique<const Records>(gpu, found);
  }
  return *records;
}

}  // namespace convt
