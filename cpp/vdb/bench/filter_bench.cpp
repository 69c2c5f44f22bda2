// Filters over 1,000,000 slots: index against the check slot by slot; single updates and batches.
#include <benchmark/benchmark.h>

#include <random>
#include <string>

#include "sage/vdb/filter.hpp"

namespace {

using namespace sage::vdb;

constexpr Slot size = 1'000'000;

Record record(std::mt19937& random) {
    const auto draw = [&random](std::int64_t end) { return std::uniform_int_distribution<std::int64_t>(0, end - 1)(random); };
    return {{"year", std::int64_t{1990 + draw(40)}},
            {"price", static_cast<double>(draw(1'000'000'000)) / 1000},
            {"lang", std::string(1, static_cast<char>('a' + draw(20)))},
            {"tags", Strings{std::string("t").append(std::to_string(draw(100))), std::string("t").append(std::to_string(draw(100)))}},
            {"public", draw(2) == 1}};
}

Metadata& metadata() {
    static Metadata filled = [] {
        std::mt19937 random(1);
        Metadata made;
        MetadataBatch batch = made.begin();
        for (Slot slot = 0; slot < size; ++slot) {
            batch.replace(slot, record(random));
        }
        batch.commit();
        return made;
    }();
    return filled;
}

Filter filter(std::int64_t which) {
    switch (which) {
        case 0: return field("lang") == std::string("c");                               // 5 %
        case 1: return field("year") >= std::int64_t{2020};                             // 25 %
        case 2: return field("price").between(1000.0, 11'000.0);                        // 1 %, nearly all values differ
        case 3: return field("price") < 500'000.0;                                      // 50 %, the same
        case 4: return field("tags").contains("t7");                                    // 2 %
        case 5: return field("price") < 1000.0 && field("year") >= std::int64_t{2000} && !(field("lang") == std::string("a"));
        default: return field("public") == true && (field("lang") == std::string("b") || field("year") == std::int64_t{2001});
    }
}

void evaluate(benchmark::State& state) {
    const BoundFilter bound(metadata().snapshot(), filter(state.range(0)));
    std::size_t found = 0;
    for (auto _ : state) {
        const SlotSet slots = bound.evaluate();
        found = slots.words().size();
        benchmark::DoNotOptimize(found);
    }
    state.SetLabel(describe(filter(state.range(0))));
    state.counters["share"] = static_cast<double>(bound.evaluate().count()) / size;
}
BENCHMARK(evaluate)->DenseRange(0, 6)->Unit(benchmark::kMicrosecond);

void estimate(benchmark::State& state) {
    const BoundFilter bound(metadata().snapshot(), filter(state.range(0)));
    for (auto _ : state) {
        benchmark::DoNotOptimize(bound.estimate());
    }
}
BENCHMARK(estimate)->DenseRange(0, 6);

// What evaluating without an index would cost.
void check_every_slot(benchmark::State& state) {
    const BoundFilter bound(metadata().snapshot(), filter(state.range(0)));
    for (auto _ : state) {
        SlotSet slots(size);
        for (Slot slot = 0; slot < size; ++slot) {
            if (bound.matches(slot)) {
                slots.insert(slot);
            }
        }
        benchmark::DoNotOptimize(slots.words().data());
    }
}
BENCHMARK(check_every_slot)->DenseRange(0, 6)->Unit(benchmark::kMicrosecond);

void bind(benchmark::State& state) {
    const MetadataSnapshot snapshot = metadata().snapshot();
    const Filter wanted = filter(5);
    for (auto _ : state) {
        benchmark::DoNotOptimize(BoundFilter(snapshot, wanted).matches(0));
    }
}
BENCHMARK(bind);

void replace(benchmark::State& state) {
    std::mt19937 random(2);
    for (auto _ : state) {
        MetadataBatch batch = metadata().begin();
        for (std::int64_t i = 0; i < state.range(0); ++i) {
            batch.replace(std::uniform_int_distribution<Slot>(0, size - 1)(random), record(random));
        }
        batch.commit();
    }
    state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(replace)->ArgName("batch")->Arg(1)->Arg(256)->Unit(benchmark::kMicrosecond);

void save_and_load(benchmark::State& state) {
    const auto saved = metadata().snapshot().save();
    for (auto _ : state) {
        benchmark::DoNotOptimize(Metadata::load(saved).snapshot().size());
    }
    state.counters["bytes"] = static_cast<double>(saved.size());
    for (const FieldStats& stats : metadata().snapshot().stats()) {
        state.counters[stats.name + "_bytes_per_slot"] = static_cast<double>(stats.column_bytes + stats.index_bytes) / size;
    }
}
BENCHMARK(save_and_load)->Unit(benchmark::kMillisecond)->Iterations(1);

}  // namespace
