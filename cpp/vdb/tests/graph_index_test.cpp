// The graph index against brute force in double precision.
#include "sage/vdb/graph_index.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "support.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace sage::vdb {
namespace {

using testing::random_values;

std::vector<Slot> consecutive(std::size_t count, Slot first = 0) {
    std::vector<Slot> slots(count);
    std::iota(slots.begin(), slots.end(), first);
    return slots;
}

// Vectors around a few centres, as embeddings are.
std::vector<float> clustered(std::mt19937& random, std::size_t count, std::size_t dimension) {
    std::mt19937 fixed(1);
    const auto centres = random_values(fixed, 20 * dimension);
    auto values = random_values(random, count * dimension);
    for (std::size_t row = 0; row < count; ++row) {
        const std::size_t centre = random() % 20;
        for (std::size_t i = 0; i < dimension; ++i) {
            float& value = values[row * dimension + i];
            value = centres[centre * dimension + i] + 0.7F * value;
        }
    }
    return values;
}

double score_of(Metric metric, const float* a, const float* b, std::size_t dimension) {
    double product = 0.0;
    double squares_a = 0.0;
    double squares_b = 0.0;
    double differences = 0.0;
    for (std::size_t i = 0; i < dimension; ++i) {
        const double x = static_cast<double>(a[i]);
        const double y = static_cast<double>(b[i]);
        product += x * y;
        squares_a += x * x;
        squares_b += y * y;
        differences += (x - y) * (x - y);
    }
    if (metric == Metric::l2) {
        return differences;
    }
    return metric == Metric::inner_product ? product : product / std::sqrt(squares_a * squares_b);
}

// The vectors by slot, and what a search of them must find.
struct Reference {
    Metric metric;
    std::size_t dimension;
    std::map<Slot, std::vector<float>> rows;

    void insert(const std::vector<Slot>& slots, const std::vector<float>& vectors) {
        for (std::size_t i = 0; i < slots.size(); ++i) {
            const auto from = vectors.begin() + static_cast<std::ptrdiff_t>(i * dimension);
            rows[slots[i]].assign(from, from + static_cast<std::ptrdiff_t>(dimension));
        }
    }
    [[nodiscard]] std::set<Slot> best(const float* query, std::size_t k, const std::vector<bool>* allowed) const {
        std::vector<std::pair<double, Slot>> all;
        for (const auto& [slot, row] : rows) {
            if (allowed == nullptr || (*allowed)[slot]) {
                const double score = score_of(metric, query, row.data(), dimension);
                all.emplace_back(higher_is_better(metric) ? -score : score, slot);
            }
        }
        std::sort(all.begin(), all.end());
        std::set<Slot> slots;
        for (std::size_t i = 0; i < std::min(k, all.size()); ++i) {
            slots.insert(all[i].second);
        }
        return slots;
    }
};

std::vector<std::uint64_t> words_of(const std::vector<bool>& allowed) {
    std::vector<std::uint64_t> words((allowed.size() + 63) / 64);
    for (std::size_t i = 0; i < allowed.size(); ++i) {
        words[i / 64] |= std::uint64_t{allowed[i]} << (i % 64);
    }
    return words;
}

// Recall over `queries`; every hit must be there, allowed, in order, once, and with its exact score.
double recall_of(const GraphIndex& index, const Reference& reference, const std::vector<float>& queries, std::size_t k,
                 std::size_t effort, const std::vector<bool>* allowed = nullptr) {
    std::size_t hits = 0;
    std::size_t wanted = 0;
    const double rounding = index.options().rows == RowFormat::float32 ? 1e-4 : 2e-2;
    const auto words = allowed == nullptr ? std::vector<std::uint64_t>{} : words_of(*allowed);
    for (std::size_t at = 0; at < queries.size(); at += reference.dimension) {
        const std::span<const float> query(queries.data() + at, reference.dimension);
        const GraphHits found = allowed == nullptr ? index.search(query, k, effort) : index.search(query, k, effort, words);
        const std::set<Slot> best = reference.best(query.data(), k, allowed);
        wanted += best.size();
        EXPECT_EQ(found.slots.size(), best.size());
        EXPECT_EQ(std::set<Slot>(found.slots.begin(), found.slots.end()).size(), found.slots.size());
        for (std::size_t i = 0; i < found.slots.size(); ++i) {
            const auto row = reference.rows.find(found.slots[i]);
            EXPECT_NE(row, reference.rows.end()) << "slot " << found.slots[i] << " is not there";
            if (row == reference.rows.end()) {
                return 0.0;
            }
            EXPECT_TRUE(allowed == nullptr || (*allowed)[found.slots[i]]);
            const double score = score_of(reference.metric, query.data(), row->second.data(), reference.dimension);
            EXPECT_NEAR(static_cast<double>(found.scores[i]), score, rounding * (1.0 + std::abs(score)));
            if (i > 0) {
                const bool ordered = higher_is_better(reference.metric) ? found.scores[i] <= found.scores[i - 1]
                                                                        : found.scores[i] >= found.scores[i - 1];
                EXPECT_TRUE(ordered);
            }
            hits += best.count(found.slots[i]);
        }
    }
    return wanted == 0 ? 1.0 : static_cast<double>(hits) / static_cast<double>(wanted);
}

class GraphMetrics : public ::testing::TestWithParam<Metric> {};

TEST_P(GraphMetrics, FindTheNearest) {
    constexpr std::size_t dimension = 40;
    std::mt19937 random(3);
    const auto vectors = clustered(random, 4000, dimension);
    const auto queries = clustered(random, 60, dimension);
    for (const RowFormat rows : {RowFormat::float32, RowFormat::float16, RowFormat::bfloat16}) {
        GraphOptions options;
        options.rows = rows;
        GraphIndex index(dimension, GetParam(), options);
        Reference reference{GetParam(), dimension, {}};
        index.insert(consecutive(4000), vectors, 2);
        reference.insert(consecutive(4000), vectors);
        EXPECT_EQ(index.size(), 4000U);
        EXPECT_EQ(index.stats().code_dimension, GetParam() == Metric::inner_product ? 41U : 40U);
        EXPECT_GE(recall_of(index, reference, queries, 10, 100), rows == RowFormat::bfloat16 ? 0.93 : 0.97);
    }
}

TEST_P(GraphMetrics, FindTheNearestOneByOne) {
    constexpr std::size_t dimension = 24;
    std::mt19937 random(4);
    GraphIndex index(dimension, GetParam());
    Reference reference{GetParam(), dimension, {}};
    const auto queries = clustered(random, 40, dimension);
    for (Slot slot = 0; slot < 2500; ++slot) {
        const auto vector = clustered(random, 1, dimension);
        index.insert(std::vector<Slot>{slot}, vector);
        reference.insert({slot}, vector);
        if (slot == 0 || slot == 500 || slot == GraphIndex::train_size - 1 || slot == 2499) {
            EXPECT_GE(recall_of(index, reference, queries, 10, 100), 0.97) << "after " << slot;
        }
    }
}

TEST_P(GraphMetrics, FilterAtEverySelectivity) {
    constexpr std::size_t dimension = 16;
    constexpr std::size_t count = 12000;
    std::mt19937 random(5);
    const auto vectors = clustered(random, count, dimension);
    const auto queries = clustered(random, 30, dimension);
    GraphIndex index(dimension, GetParam());
    Reference reference{GetParam(), dimension, {}};
    index.insert(consecutive(count), vectors, 2);
    reference.insert(consecutive(count), vectors);
    for (const double share : {0.0, 0.0005, 0.01, 0.3, 0.5, 0.7, 1.0}) {
        std::vector<bool> allowed(count);
        std::bernoulli_distribution coin(share);
        for (std::size_t i = 0; i < count; ++i) {
            allowed[i] = coin(random);
        }
        EXPECT_GE(recall_of(index, reference, queries, 10, 40, &allowed), 0.95) << "share " << share;
    }
}

INSTANTIATE_TEST_SUITE_P(EveryMetric, GraphMetrics,
                         ::testing::Values(Metric::cosine, Metric::inner_product, Metric::l2),
                         [](const auto& parameter) { return std::string(metric_name(parameter.param)); });

TEST(GraphIndex, KnowsWhichEffortGivesARecall) {
    constexpr std::size_t dimension = 32;
    constexpr std::size_t count = 4000;
    std::mt19937 random(15);
    GraphIndex index(dimension, Metric::l2);
    EXPECT_EQ(index.effort_for(0.9, 10), 0U) << "nothing was measured yet";
    Reference reference{Metric::l2, dimension, {}};
    // No clusters, so that little effort does not find all.
    const auto vectors = random_values(random, count * dimension);
    index.insert(consecutive(count), vectors, 2);
    reference.insert(consecutive(count), vectors);
    const auto queries = random_values(random, 100 * dimension);
    std::size_t before = 0;
    for (const double recall : {0.9, 0.95, 0.99}) {
        const std::size_t effort = index.effort_for(recall, 10);
        EXPECT_GE(effort, before);
        before = effort;
        EXPECT_GE(recall_of(index, reference, queries, 10, effort), recall - 0.04) << effort;
        EXPECT_GE(index.effort_for(recall, 100), std::max<std::size_t>(effort, 100));
    }
    EXPECT_GT(index.effort_for(0.99, 10), index.effort_for(0.5, 10));
    EXPECT_EQ(GraphIndex::load(index.save()).effort_for(0.95, 10), index.effort_for(0.95, 10));
    // More than a fifth comes, in small parts: it is measured anew, and other vectors need another effort.
    const std::size_t before_change = index.effort_for(0.99, 10);
    const auto more = clustered(random, 4200, dimension);
    for (std::size_t first = 0; first < 4200; first += 10) {
        index.insert(consecutive(10, static_cast<Slot>(count + first)),
                     std::span(more).subspan(first * dimension, 10 * dimension));
    }
    EXPECT_LT(index.effort_for(0.99, 10), before_change);
}

TEST(GraphIndex, SaysHowItGoesAboutAFilter) {
    std::mt19937 random(16);
    GraphIndex index(8, Metric::l2);
    EXPECT_NE(index.explain_filter(3, 10, 40).find("scores all"), std::string::npos);
    index.insert(consecutive(6000), clustered(random, 6000, 8), 2);
    EXPECT_NE(index.explain_filter(50, 10, 40).find("all allowed"), std::string::npos);
    EXPECT_NE(index.explain_filter(3000, 10, 10).find("nearest"), std::string::npos);
}

TEST(GraphIndex, ProjectsWhereTheVectorsLieNearASurface) {
    constexpr std::size_t dimension = 384;
    constexpr std::size_t hidden = 24;
    std::mt19937 random(6);
    const auto directions = random_values(random, hidden * dimension);
    const auto made = [&](std::size_t count) {
        const auto latent = random_values(random, count * hidden);
        auto vectors = random_values(random, count * dimension);
        for (std::size_t row = 0; row < count; ++row) {
            for (std::size_t i = 0; i < dimension; ++i) {
                float sum = 0.05F * vectors[row * dimension + i];
                for (std::size_t j = 0; j < hidden; ++j) {
                    sum += latent[row * hidden + j] * directions[j * dimension + i];
                }
                vectors[row * dimension + i] = sum;
            }
        }
        return vectors;
    };
    const auto vectors = made(3000);
    const auto queries = made(50);
    for (const Metric metric : {Metric::cosine, Metric::inner_product, Metric::l2}) {
        GraphIndex index(dimension, metric);
        Reference reference{metric, dimension, {}};
        index.insert(consecutive(3000), vectors, 2);
        reference.insert(consecutive(3000), vectors);
        EXPECT_EQ(index.stats().code_dimension, 64U);
        EXPECT_GE(index.stats().code_energy, 0.98F);
        EXPECT_GE(recall_of(index, reference, queries, 10, 100), 0.95) << metric_name(metric);
    }
}

TEST(GraphIndex, KeepsItsRecallWhenAllIsReplacedInParts) {
    constexpr std::size_t dimension = 20;
    constexpr std::size_t count = 3000;
    std::mt19937 random(7);
    GraphIndex index(dimension, Metric::l2);
    Reference reference{Metric::l2, dimension, {}};
    const auto first = clustered(random, count, dimension);
    index.insert(consecutive(count), first, 2);
    reference.insert(consecutive(count), first);
    const auto queries = clustered(random, 60, dimension);
    const double before = recall_of(index, reference, queries, 10, 40);
    EXPECT_GE(before, 0.95);
    std::vector<Slot> free;
    Slot next = count;
    for (int turn = 0; turn < 2 * static_cast<int>(count); ++turn) {
        auto victim = reference.rows.begin();
        std::advance(victim, static_cast<std::ptrdiff_t>(random() % reference.rows.size()));
        ASSERT_EQ(index.remove(std::vector<Slot>{victim->first}), 1U);
        reference.rows.erase(victim);
        const auto taken = index.take_free();
        free.insert(free.end(), taken.begin(), taken.end());
        Slot slot = next;
        if (free.empty()) {
            ++next;
        } else {
            slot = free.back();
            free.pop_back();
        }
        const auto vector = clustered(random, 1, dimension);
        index.insert(std::vector<Slot>{slot}, vector);
        reference.insert({slot}, vector);
        if (turn % 1000 == 999) {
            EXPECT_GE(recall_of(index, reference, queries, 10, 40), before - 0.02) << "turn " << turn;
        }
    }
    EXPECT_EQ(index.size(), count);
    // Slots come back: the table is a little larger than its contents and does not grow with the number of changes.
    EXPECT_LT(next, count + count / 2);
    index.consolidate();
    EXPECT_EQ(index.stats().removed, 0U);
    EXPECT_GE(recall_of(index, reference, queries, 10, 40), before - 0.02);
}

TEST(GraphIndex, LosesAllAndStartsAnew) {
    constexpr std::size_t dimension = 8;
    std::mt19937 random(8);
    GraphIndex index(dimension, Metric::l2);
    index.insert(consecutive(1500), random_values(random, 1500 * dimension));
    EXPECT_EQ(index.remove(consecutive(1500)), 1500U);
    EXPECT_EQ(index.remove(consecutive(1500)), 0U);
    EXPECT_EQ(index.size(), 0U);
    const std::vector<float> query(dimension, 0.5F);
    EXPECT_TRUE(index.search(query, 5, 10).slots.empty());
    index.consolidate(2);
    EXPECT_EQ(index.take_free().size(), 1500U);
    EXPECT_TRUE(index.search(query, 5, 10).slots.empty());
    index.insert(consecutive(40, 7), random_values(random, 40 * dimension));
    EXPECT_EQ(index.search(query, 50, 50).slots.size(), 40U);
}

TEST(GraphIndex, HoldsManyEqualVectors) {
    constexpr std::size_t dimension = 6;
    std::vector<float> vectors(3000 * dimension, 1.0F);
    vectors.resize(3001 * dimension, 2.0F);
    GraphIndex index(dimension, Metric::l2);
    index.insert(consecutive(3001), vectors);
    const std::vector<float> query(dimension, 2.0F);
    EXPECT_EQ(index.search(query, 5, 20).slots.size(), 5U);
    // Nearly all can be reached, though not with little effort: one of 3000 equals leads to the other one.
    const GraphHits hits = index.search(query, 3001, 3001);
    EXPECT_GE(hits.slots.size(), 2700U);
    EXPECT_EQ(hits.slots.at(0), 3000U);
}

TEST(GraphIndex, ScoresZeroVectorsUnderCosineWithZero) {
    std::mt19937 random(9);
    GraphIndex index(4, Metric::cosine);
    auto vectors = random_values(random, 1200 * 4);
    std::fill(vectors.begin(), vectors.begin() + 4, 0.0F);
    index.insert(consecutive(1200), vectors);
    const std::vector<float> zero(4, 0.0F);
    for (const float score : index.search(zero, 5, 20).scores) {
        EXPECT_EQ(score, 0.0F);
    }
    std::vector<float> vector(4);
    EXPECT_TRUE(index.get(0, vector));
    EXPECT_EQ(vector, zero);
}

// Once, the step of their codes was computed as 127 / largest, which did not fit (found by fuzzing).
TEST(GraphIndex, TakesTheSmallestNumbers) {
    std::mt19937 random(10);
    constexpr float least = std::numeric_limits<float>::denorm_min();
    for (const Metric metric : {Metric::inner_product, Metric::l2}) {
        GraphIndex index(4, metric);
        auto vectors = random_values(random, 1200 * 4);
        for (float& value : vectors) {
            value *= least;  // some of them 0
        }
        index.insert(consecutive(1200), vectors);
        const GraphHits hits = index.search(std::vector<float>{least, -least, 3 * least, 0.0F}, 5, 40);
        ASSERT_EQ(hits.slots.size(), 5U);
        for (const float score : hits.scores) {
            EXPECT_TRUE(std::isfinite(score));
        }
    }
}

TEST(GraphIndex, SavesAndLoads) {
    constexpr std::size_t dimension = 12;
    std::mt19937 random(10);
    const auto queries = random_values(random, 20 * dimension);
    for (const std::size_t count : {std::size_t{0}, std::size_t{30}, std::size_t{2000}}) {
        for (const Metric metric : {Metric::cosine, Metric::inner_product, Metric::l2}) {
            GraphIndex index(dimension, metric);
            index.insert(consecutive(count, 5), random_values(random, count * dimension), 2);
            index.remove(consecutive(count / 10, 5));
            const std::vector<std::byte> bytes = index.save();
            GraphIndex loaded = GraphIndex::load(bytes);
            EXPECT_EQ(loaded.size(), index.size());
            EXPECT_EQ(loaded.metric(), metric);
            for (std::size_t at = 0; at < queries.size(); at += dimension) {
                const std::span<const float> query(queries.data() + at, dimension);
                const GraphHits before = index.search(query, 7, 30);
                const GraphHits after = loaded.search(query, 7, 30);
                EXPECT_EQ(after.slots, before.slots);
                EXPECT_EQ(after.scores, before.scores);
            }
            loaded.consolidate();
            loaded.insert(consecutive(count / 10, 5), random_values(random, count / 10 * dimension));
            loaded.remove(consecutive(count / 10, 5));
            loaded.insert(consecutive(3, 100000), random_values(random, 3 * dimension));
            EXPECT_EQ(loaded.size(), index.size() + 3);
        }
    }
}

TEST(GraphIndex, RefusesBytesThatItDidNotWrite) {
    std::mt19937 random(11);
    GraphIndex index(5, Metric::l2);
    index.insert(consecutive(1100), random_values(random, 1100 * 5));
    const std::vector<std::byte> bytes = index.save();
    for (std::size_t size = 0; size < bytes.size(); size += 1 + size / 20) {
        EXPECT_THROW(static_cast<void>(GraphIndex::load(std::span(bytes).first(size))), InvalidArgument) << size;
    }
    auto longer = bytes;
    longer.push_back(std::byte{0});
    EXPECT_THROW(static_cast<void>(GraphIndex::load(longer)), InvalidArgument);
    // Whatever is changed: an error, or an index that can be used, as the fuzz target says.
    for (int turn = 0; turn < 1500; ++turn) {
        auto changed = bytes;
        const std::size_t at = turn < 750 ? random() % 100 : random() % bytes.size();
        changed[at] ^= static_cast<std::byte>(1U << random() % 8);
        EXPECT_EQ(LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(changed.data()), changed.size()), 0);
    }
}

TEST(GraphIndex, RefusesBadInput) {
    using testing::expect_refused;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_THROW(GraphIndex(0, Metric::l2), InvalidArgument);
    EXPECT_THROW(GraphIndex(GraphIndex::dimension_max + 1, Metric::l2), InvalidArgument);
    GraphOptions options;
    options.degree = 7;
    expect_refused([&] { GraphIndex(2, Metric::l2, options); }, "degree must be between 8 and 256, got 7");
    GraphIndex index(2, Metric::l2);
    expect_refused([&] { index.insert(std::vector<Slot>{1}, std::vector<float>{1.0F}); },
                   "vectors must hold one row of dimension 2 per slot, got 1 values for 1 slots");
    expect_refused([&] { index.insert(std::vector<Slot>{1}, std::vector<float>{1.0F, nan}); },
                   "vectors[0][1] must be finite, got nan");
    expect_refused([&] { index.insert(std::vector<Slot>{1}, std::vector<float>{1.0F, 70000.0F}); },
                   "vectors[0][1] must be within 65504 for float16 rows, got 70000.000000; float32 or bfloat16 rows "
                   "hold it");
    expect_refused([&] { index.insert(std::vector<Slot>{1, 1}, std::vector<float>(4)); },
                   "slots must be distinct within a batch, got 1 twice");
    index.insert(std::vector<Slot>{3}, std::vector<float>{1.0F, 2.0F});
    expect_refused([&] { index.insert(std::vector<Slot>{3}, std::vector<float>(2)); },
                   "slot 3 must be free, it holds a vector; remove it first");
    expect_refused([&] { static_cast<void>(index.search(std::vector<float>{1.0F}, 1, 1)); },
                   "a query must have the dimension 2, got 1");
    expect_refused([&] { static_cast<void>(index.search(std::vector<float>{1.0F, nan}, 1, 1)); },
                   "query[0][1] must be finite, got nan");
    expect_refused([&] { static_cast<void>(index.search(std::vector<float>(2), 0, 1)); }, "k must be >= 1, got 0");
    EXPECT_EQ(index.size(), 1U);
    EXPECT_TRUE(index.contains(3));
    EXPECT_FALSE(index.contains(2));
    EXPECT_FALSE(index.contains(4000000000U));
}

}  // namespace
}  // namespace sage::vdb
