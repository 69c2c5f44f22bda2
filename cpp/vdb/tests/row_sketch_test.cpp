// What the sketch rules out is never among the best, whatever the values.
#include "row_sketch.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "sage/common/panel.hpp"
#include "sage/vdb/index.hpp"

namespace sage::vdb::testing {
namespace {

constexpr std::size_t rows = 512;

struct Shape {
    std::string name;
    // The value of one place of one row, of noise that is normally distributed.
    float (*value)(std::size_t row, std::size_t place, float noise);
};

const Shape shapes[] = {
    {"noise", [](std::size_t, std::size_t, float noise) { return noise; }},
    {"clusters",
     [](std::size_t row, std::size_t place, float noise) {
         return std::sin(static_cast<float>((row % 8) * 131 + place * 7)) + 0.1F * noise;
     }},
    {"lengths_apart",
     [](std::size_t row, std::size_t, float noise) {
         return noise * std::exp2(static_cast<float>(static_cast<int>(row % 40) - 20));
     }},
    {"one_place_dominates",
     [](std::size_t, std::size_t place, float noise) { return place == 3 ? 1000.0F * noise : noise; }},
    {"all_equal", [](std::size_t, std::size_t, float) { return 0.25F; }},
    {"some_zero", [](std::size_t row, std::size_t, float noise) { return row % 3 == 0 ? 0.0F : noise; }},
    {"tiny", [](std::size_t, std::size_t, float noise) { return noise * 1e-39F; }},
    {"huge", [](std::size_t, std::size_t, float noise) { return noise * 1e16F; }},
    {"far_from_zero", [](std::size_t, std::size_t, float noise) { return 1000.0F + noise; }},
};

std::vector<float> values_of(const Shape& shape, std::size_t count, std::size_t dimension, std::mt19937& random) {
    std::normal_distribution<float> noise;
    std::vector<float> values(count * dimension);
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = shape.value(i / dimension, i % dimension, noise(random));
    }
    return values;
}

std::vector<float> costs_of(Metric metric, const float* query, const std::vector<float>& values,
                            std::size_t dimension) {
    std::vector<float> costs(values.size() / dimension);
    const auto& kernels = distance::panel_kernels();
    for (std::size_t row = 0; row < costs.size(); ++row) {
        const float* one = values.data() + row * dimension;
        (metric == Metric::l2 ? kernels.l2_squared_rows : kernels.product_rows)(query, &one, 1, dimension, &costs[row]);
        costs[row] = metric == Metric::l2 ? costs[row] : -costs[row];
    }
    return costs;
}

class Sketches : public ::testing::TestWithParam<Metric> {
protected:
    // Calls check(dimension, shape) for each of both.
    template <class Check>
    static void for_all(std::initializer_list<std::size_t> dimensions, Check check) {
        for (const std::size_t dimension : dimensions) {
            for (const Shape& shape : shapes) {
                SCOPED_TRACE(shape.name + " of dimension " + std::to_string(dimension));
                check(dimension, shape);
            }
        }
    }
};

void check_bounds(Metric metric, std::size_t dimension, const Shape& shape) {
    std::mt19937 random(static_cast<unsigned>(dimension));
    const std::vector<float> values = values_of(shape, rows, dimension, random);
    RowSketch sketch(dimension, metric);
    sketch.reserve(rows);
    for (std::size_t row = 0; row < rows; ++row) {
        sketch.encode(static_cast<RowSketch::Slot>(row), values.data() + row * dimension);
    }
    RowSketch::Query prepared;
    const std::vector<float> queries = values_of(shape, 6, dimension, random);
    for (std::size_t q = 0; q < 6; ++q) {
        const std::vector<float> costs = costs_of(metric, queries.data() + q * dimension, values, dimension);
        sketch.prepare(queries.data() + q * dimension, prepared);
        std::vector<float> limits = costs;
        std::sort(limits.begin(), limits.end());
        const std::uint64_t wanted = ~std::uint64_t{0} << (q % 3);
        for (const std::size_t place : {std::size_t{0}, std::size_t{9}, rows / 2, rows - 1}) {
            for (std::size_t first = 0; first < rows; first += 64) {
                const std::uint64_t found =
                    sketch.within(prepared, static_cast<RowSketch::Slot>(first), wanted, limits[place]);
                std::uint64_t must = 0;
                for (std::size_t i = 0; i < 64; ++i) {
                    must |= static_cast<std::uint64_t>(costs[first + i] <= limits[place]) << i;
                }
                EXPECT_EQ(found & ~wanted, 0U);
                EXPECT_EQ(must & wanted & ~found, 0U) << "of the rows from " << first << " on, query " << q;
            }
        }
    }
}

TEST_P(Sketches, RuleOutNothingThatIsWithinTheLimit) {
    for_all({32, 33, 100, 128, 1000},
            [](std::size_t dimension, const Shape& shape) { check_bounds(GetParam(), dimension, shape); });
}

// The rows so that those come last which are nearest to the query: each block is better than those before it.
std::vector<float> nearest_last(Metric metric, const float* query, const std::vector<float>& values,
                                std::size_t dimension) {
    const std::vector<float> costs = costs_of(metric, query, values, dimension);
    std::vector<std::size_t> order(costs.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return costs[a] > costs[b]; });
    std::vector<float> sorted;
    for (const std::size_t row : order) {
        const auto first = values.begin() + static_cast<std::ptrdiff_t>(row * dimension);
        sorted.insert(sorted.end(), first, first + static_cast<std::ptrdiff_t>(dimension));
    }
    return sorted;
}

void check_search(Metric metric, std::size_t dimension, const std::vector<float>& values,
                  const std::vector<float>& queries) {
    IndexOptions options;
    options.dimension = dimension;
    options.metric = metric;
    options.kind = IndexKind::flat;
    const auto index = make_index(options);
    std::vector<Slot> slots(values.size() / dimension);
    std::iota(slots.begin(), slots.end(), Slot{0});
    index->insert(slots, values);
    const auto loaded = load_index(index->save());
    for (std::size_t first = 0; first < queries.size(); first += dimension) {
        const std::span<const float> query(queries.data() + first, dimension);
        const std::vector<float> costs = costs_of(metric, query.data(), values, dimension);
        std::vector<Slot> best = slots;
        std::sort(best.begin(), best.end(),
                  [&](Slot a, Slot b) { return std::pair(costs[a], a) < std::pair(costs[b], b); });
        best.resize(10);
        for (const Index* each : {index.get(), loaded.get()}) {
            const Hits hits = each->search(query, 10, 1);
            EXPECT_EQ(hits.slots, best);
            for (std::size_t i = 0; i < hits.scores.size(); ++i) {
                EXPECT_EQ(hits.scores[i], metric == Metric::l2 ? costs[best[i]] : -costs[best[i]]);
            }
        }
    }
}

// Under cosine rows are brought to length 1 first; the rest is inner_product.
class FlatSearches : public Sketches {};

TEST_P(FlatSearches, FindWhatALookAtAllRowsFinds) {
    for_all({33, 128}, [](std::size_t dimension, const Shape& shape) {
        std::mt19937 random(static_cast<unsigned>(dimension) + 1);
        const std::vector<float> values = values_of(shape, 4 * rows, dimension, random);
        const std::vector<float> queries = values_of(shape, 2, dimension, random);
        check_search(GetParam(), dimension, values, queries);
        check_search(GetParam(), dimension, nearest_last(GetParam(), queries.data(), values, dimension), queries);
    });
}

INSTANTIATE_TEST_SUITE_P(All, Sketches, ::testing::Values(Metric::cosine, Metric::inner_product, Metric::l2),
                         [](const auto& of) { return std::string(metric_name(of.param)); });

INSTANTIATE_TEST_SUITE_P(All, FlatSearches, ::testing::Values(Metric::inner_product, Metric::l2),
                         [](const auto& of) { return std::string(metric_name(of.param)); });

TEST(RowSketch, RulesOutMostOfWhatIsFar) {
    constexpr std::size_t dimension = 128;
    std::mt19937 random(3);
    const std::vector<float> values = values_of(shapes[1], rows, dimension, random);
    RowSketch sketch(dimension, Metric::l2);
    sketch.reserve(rows);
    for (std::size_t row = 0; row < rows; ++row) {
        sketch.encode(static_cast<RowSketch::Slot>(row), values.data() + row * dimension);
    }
    RowSketch::Query prepared;
    sketch.prepare(values.data(), prepared);
    std::vector<float> costs = costs_of(Metric::l2, values.data(), values, dimension);
    std::sort(costs.begin(), costs.end());
    std::size_t found = 0;
    for (std::size_t first = 0; first < rows; first += 64) {
        found += static_cast<std::size_t>(
            std::popcount(sketch.within(prepared, static_cast<RowSketch::Slot>(first), ~std::uint64_t{0}, costs[9])));
    }
    // The ten, and not much more than the eighth of all that is in their cluster.
    EXPECT_GE(found, 10U);
    EXPECT_LE(found, 80U);
}

}  // namespace
}  // namespace sage::vdb::testing
