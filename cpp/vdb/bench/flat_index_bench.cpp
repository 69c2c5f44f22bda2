// Searches of the exact index: 20,000 vectors of dimension 384, by metric, queries per batch and k.
#include <benchmark/benchmark.h>

#include <numeric>
#include <random>
#include <vector>

#include "sage/vdb/flat_index.hpp"

namespace {

using sage::vdb::FlatIndex;
using sage::vdb::Metric;

constexpr std::size_t dimension = 384;
constexpr std::size_t size = 20'000;

std::vector<float> random_values(std::size_t count) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float& value : values) {
        value = normal(random);
    }
    return values;
}

void search(benchmark::State& state) {
    FlatIndex index(dimension, static_cast<Metric>(state.range(0)));
    std::vector<sage::vdb::Id> ids(size);
    std::iota(ids.begin(), ids.end(), 0);
    index.add(ids, random_values(size * dimension));
    const auto query_count = static_cast<std::size_t>(state.range(1));
    const auto queries = random_values(query_count * dimension);
    for (auto _ : state) {
        benchmark::DoNotOptimize(index.search(queries, static_cast<std::size_t>(state.range(2))));
    }
    state.SetItemsProcessed(state.iterations() * state.range(1));
}
BENCHMARK(search)->ArgNames({"metric", "queries", "k"})->ArgsProduct({{0, 1, 2}, {1, 64}, {10, 1000}});

void add(benchmark::State& state) {
    std::vector<sage::vdb::Id> ids(size);
    std::iota(ids.begin(), ids.end(), 0);
    const auto vectors = random_values(size * dimension);
    for (auto _ : state) {
        FlatIndex index(dimension, static_cast<Metric>(state.range(0)));
        index.add(ids, vectors);
        benchmark::DoNotOptimize(index.size());
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(size));
}
BENCHMARK(add)->ArgName("metric")->Arg(0)->Arg(1)->Arg(2);

}  // namespace
