// The indexes over slots: one query of flat against a plain read of the same bytes, batches, and the other kinds.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "sage/common/aligned.hpp"
#include "sage/vdb/index.hpp"

namespace {

using sage::vdb::IndexKind;
using sage::vdb::Slot;

std::vector<float> random_values(std::size_t count) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    std::vector<float> values(count);
    for (float& value : values) {
        value = uniform(random);
    }
    return values;
}

// What the memory gives one core: eight sums of whole words.
void read_memory(benchmark::State& state) {
    const auto count = static_cast<std::size_t>(state.range(0) * state.range(1));
    sage::AlignedVector<float> values(count, 1.0F);
    for (auto _ : state) {
        std::uint64_t sums[8] = {};
        const auto* words = reinterpret_cast<const char*>(values.data());
        for (std::size_t at = 0; at + 64 <= count * sizeof(float); at += 64) {
            for (std::size_t i = 0; i < 8; ++i) {
                std::uint64_t word = 0;
                std::memcpy(&word, words + at + 8 * i, sizeof word);
                sums[i] += word;
            }
        }
        benchmark::DoNotOptimize(sums);
    }
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(count * sizeof(float)));
}
BENCHMARK(read_memory)->ArgNames({"rows", "dimension"})->Args({200'000, 128})->Args({100'000, 1024});

std::unique_ptr<sage::vdb::Index> made(const benchmark::State& state, IndexKind kind, std::size_t rows) {
    sage::vdb::IndexOptions options;
    options.dimension = static_cast<std::size_t>(state.range(1));
    options.metric = sage::vdb::Metric::l2;
    options.kind = kind;
    auto index = sage::vdb::make_index(options);
    std::vector<Slot> slots(rows);
    std::iota(slots.begin(), slots.end(), Slot{0});
    index->insert(slots, random_values(rows * options.dimension), 2);
    return index;
}

void flat_one_query(benchmark::State& state) {
    const auto rows = static_cast<std::size_t>(state.range(0));
    const auto index = made(state, IndexKind::flat, rows);
    const auto query = random_values(index->dimension());
    for (auto _ : state) {
        benchmark::DoNotOptimize(index->search(query, 10, 1));
    }
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(rows * index->dimension() * sizeof(float)));
}
BENCHMARK(flat_one_query)->ArgNames({"rows", "dimension"})->Args({200'000, 128})->Args({100'000, 1024});

// Where automatic changes from flat to graph: the time of one query by kind and size.
void one_query(benchmark::State& state) {
    const auto index = made(state, static_cast<IndexKind>(state.range(2)), static_cast<std::size_t>(state.range(0)));
    const auto query = random_values(index->dimension());
    for (auto _ : state) {
        benchmark::DoNotOptimize(index->search(query, 10, 32));
    }
}
BENCHMARK(one_query)
    ->ArgNames({"rows", "dimension", "kind"})
    ->ArgsProduct({{1'000, 2'000, 4'000}, {128}, {1, 4}})
    ->ArgsProduct({{250, 500, 1'000}, {1024}, {1, 4}});

}  // namespace
