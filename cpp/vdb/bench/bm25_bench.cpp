// Full text over 200,000 documents of 20 to 180 Zipf-like words: pruned against exhaustive search; updates.
#include <benchmark/benchmark.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "sage/vdb/bm25.hpp"

namespace {

using namespace sage::vdb;

constexpr Slot size = 200'000;
constexpr double vocabulary = 100'000;

std::string text(std::mt19937& random, std::size_t words, double share) {
    std::string text;
    for (; words > 0; --words) {
        const double place = std::uniform_real_distribution<double>(0, share)(random);
        text.append("w").append(std::to_string(static_cast<int>(std::pow(vocabulary, place)))).append(" ");
    }
    return text;
}

std::string document(std::mt19937& random) {
    return text(random, std::uniform_int_distribution<std::size_t>(20, 180)(random), 1.0);
}

Bm25Index& index() {
    static Bm25Index filled = [] {
        std::mt19937 random(1);
        Bm25Index made;
        Bm25Batch batch = made.begin();
        for (Slot slot = 0; slot < size; ++slot) {
            batch.replace(slot, document(random));
        }
        batch.commit();
        return made;
    }();
    return filled;
}

std::vector<std::string> queries(std::int64_t words) {
    std::mt19937 random(3);
    std::vector<std::string> all(100);
    for (std::string& query : all) {
        query = text(random, static_cast<std::size_t>(words), 1.0);
    }
    return all;
}

// 0: search_all, 1: search, 2: search among 1 % of the slots.
void search(benchmark::State& state) {
    const Bm25Snapshot snapshot = index().snapshot();
    const auto all = queries(state.range(1));
    SlotSet allowed;
    for (Slot slot = 0; slot < size; slot += 100) {
        allowed.insert(slot);
    }
    std::size_t next = 0;
    for (auto _ : state) {
        const std::string& query = all[next++ % all.size()];
        const auto k = static_cast<std::size_t>(state.range(2));
        benchmark::DoNotOptimize(state.range(0) == 0 ? snapshot.search_all(query, k)
                                                     : snapshot.search(query, k, state.range(0) == 2 ? &allowed : nullptr));
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(search)->ArgNames({"form", "words", "k"})->ArgsProduct({{0, 1, 2}, {2, 4, 8}, {10, 100}})->Unit(benchmark::kMicrosecond);

void replace(benchmark::State& state) {
    std::mt19937 random(2);
    for (auto _ : state) {
        Bm25Batch batch = index().begin();
        for (std::int64_t i = 0; i < state.range(0); ++i) {
            batch.replace(std::uniform_int_distribution<Slot>(0, size - 1)(random), document(random));
        }
        batch.commit();
    }
    state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(replace)->ArgName("batch")->Arg(1)->Arg(256)->Unit(benchmark::kMicrosecond);

void build(benchmark::State& state) {
    std::mt19937 random(1);
    std::vector<std::string> texts(20'000);
    for (std::string& one : texts) {
        one = document(random);
    }
    for (auto _ : state) {
        Bm25Index made;
        Bm25Batch batch = made.begin();
        for (Slot slot = 0; slot < texts.size(); ++slot) {
            batch.replace(slot, texts[slot]);
        }
        batch.commit();
        benchmark::DoNotOptimize(made.snapshot().size());
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(texts.size()));
}
BENCHMARK(build)->Unit(benchmark::kMillisecond);

void load(benchmark::State& state) {
    const auto saved = index().snapshot().save();
    for (auto _ : state) {
        benchmark::DoNotOptimize(Bm25Index::load(saved).snapshot().size());
    }
    const Bm25Stats stats = index().snapshot().stats();
    state.counters["saved_bytes"] = static_cast<double>(saved.size());
    state.counters["bytes_per_posting"] = static_cast<double>(stats.bytes) / static_cast<double>(stats.postings);
    state.counters["postings"] = static_cast<double>(stats.postings);
}
BENCHMARK(load)->Unit(benchmark::kMillisecond)->Iterations(1);

}  // namespace
