// The graph index: searches by effort, inserts and removals, over 20,000 vectors of dimension 128.
#include <benchmark/benchmark.h>

#include <numeric>
#include <random>
#include <vector>

#include "sage/vdb/graph_index.hpp"

namespace {

using sage::vdb::GraphIndex;
using sage::vdb::Metric;
using sage::vdb::Slot;

constexpr std::size_t dimension = 128;
constexpr std::size_t size = 20'000;

std::vector<float> random_values(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float& value : values) {
        value = normal(random);
    }
    return values;
}

GraphIndex filled() {
    GraphIndex index(dimension, Metric::l2);
    std::vector<Slot> slots(size);
    std::iota(slots.begin(), slots.end(), 0U);
    index.insert(slots, random_values(size * dimension, 1), 2);
    return index;
}

void search(benchmark::State& state) {
    static const GraphIndex index = filled();
    const auto queries = random_values(100 * dimension, 2);
    const auto effort = static_cast<std::size_t>(state.range(0));
    Slot slots[10];
    float scores[10];
    std::size_t turn = 0;
    for (auto _ : state) {
        const std::span<const float> query(queries.data() + turn++ % 100 * dimension, dimension);
        benchmark::DoNotOptimize(index.search(query, 10, effort, slots, scores));
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(search)->ArgName("effort")->Arg(16)->Arg(64)->Arg(256);

void replace(benchmark::State& state) {
    GraphIndex index = filled();
    const auto vectors = random_values(100 * dimension, 3);
    Slot oldest = 0;
    Slot next = size;
    for (auto _ : state) {
        index.remove(std::vector<Slot>{oldest++});
        index.insert(std::vector<Slot>{next++}, std::span(vectors).subspan(oldest % 100 * dimension, dimension));
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(replace)->Iterations(4000);

void build(benchmark::State& state) {
    for (auto _ : state) {
        benchmark::DoNotOptimize(filled().size());
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(size));
}
BENCHMARK(build)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
