// One query against 1024 rows, per level and dimension.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "sage/common/aligned.hpp"
#include "sage/common/distance.hpp"

namespace {

constexpr std::size_t row_count = 1024;

void scan(benchmark::State& state, sage::distance::Kernels::Rows kernel) {
    const auto dimension = static_cast<std::size_t>(state.range(0));
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    sage::AlignedVector<float> rows(dimension * row_count);
    for (float& value : rows) {
        value = normal(random);
    }
    const std::vector<float> query(rows.begin(), rows.begin() + state.range(0));
    std::vector<float> scores(row_count);
    for (auto _ : state) {
        kernel(query.data(), rows.data(), row_count, dimension, scores.data());
        benchmark::DoNotOptimize(scores.data());
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(rows.size() * sizeof(float)));
}

// Before main, because Google Benchmark's own main runs what is registered by then.
const bool registered = [] {
    for (const sage::simd::Level level : sage::simd::available_levels()) {
        const sage::distance::Kernels& kernels = sage::distance::kernels(level);
        const std::string name(sage::simd::level_name(level));
        for (const auto& [metric, kernel] : {std::pair{"/inner_product", kernels.inner_product_rows},
                                             std::pair{"/l2_squared", kernels.l2_squared_rows},
                                             std::pair{"/cosine", kernels.cosine_rows}}) {
            benchmark::RegisterBenchmark((name + metric).c_str(), scan, kernel)->Arg(100)->Arg(384)->Arg(768);
        }
    }
    return true;
}();

}  // namespace
