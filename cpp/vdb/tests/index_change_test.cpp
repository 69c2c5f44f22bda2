// Indexes that change: what is learned from rows that come one by one, and removal that is spread over changes.
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <random>
#include <string>
#include <thread>

#include "index_support.hpp"

namespace sage::vdb::testing {
namespace {

constexpr std::size_t dimension = index_dimension;

IndexOptions options_of(IndexKind kind, Storage storage) {
    IndexOptions options;
    options.dimension = dimension;
    options.metric = Metric::l2;
    options.kind = kind;
    options.storage = storage;
    return options;
}

// Clusters far from the origin: around it all signs are alike, and bits say nothing.
std::vector<float> far_values(std::mt19937& random, std::size_t count) {
    auto values = clustered_values(random, count);
    for (float& value : values) {
        value += 20.0F;
    }
    return values;
}

void enter(Model& model, std::span<const float> values) {
    for (std::size_t first = 0; first < values.size(); first += dimension) {
        model.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(first),
                           values.begin() + static_cast<std::ptrdiff_t>(first + dimension));
    }
}

class Bits : public ::testing::TestWithParam<IndexKind> {};

TEST_P(Bits, learn_their_centre_however_rows_come) {
    std::mt19937 random(21);
    const auto values = far_values(random, 3000);
    const auto queries = far_values(random, 40);
    Model model;
    enter(model, values);
    std::vector<double> recalls;
    for (const std::size_t batch : {3000U, 7U, 1U}) {
        const auto index = make_index(options_of(GetParam(), Storage::bit1));
        for (std::size_t first = 0; first < 3000; first += batch) {
            const std::size_t count = std::min<std::size_t>(batch, 3000 - first);
            index->insert(consecutive_slots(count, static_cast<Slot>(first)),
                          std::span(values).subspan(first * dimension, count * dimension));
        }
        recalls.push_back(recall_of(*index, model, queries, 10, 150));
        EXPECT_GE(recalls.back(), 0.85) << "rows in batches of " << batch;
        EXPECT_NEAR(recalls.back(), recalls.front(), 0.08) << "rows in batches of " << batch;
    }
}

TEST_P(Bits, few_rows_are_found_exactly_and_keep_all_promises) {
    std::mt19937 random(22);
    const auto values = far_values(random, 300);
    const auto queries = far_values(random, 20);
    auto index = make_index(options_of(GetParam(), Storage::bit1));
    Model model;
    enter(model, std::span(values).first(200 * dimension));
    index->insert(consecutive_slots(200), std::span(values).first(200 * dimension));
    EXPECT_GE(recall_of(*index, model, queries, 10, 10), 0.98);  // of float16
    const std::vector<Slot> gone{3, 199};
    EXPECT_EQ(index->remove(gone), 2U);
    model[3].clear();
    model[199].clear();
    index = load_index(index->save());
    EXPECT_EQ(index->size(), 198U);
    EXPECT_EQ(index->stats().size, 198U);
    EXPECT_GE(recall_of(*index, model, queries, 10, 10), 0.98);
    const std::vector<Slot> more{7};
    EXPECT_EQ(index->remove(more), 1U);
    model[7].clear();
    EXPECT_EQ(index->take_free(), more);
    const auto words = allow_every(200, 2);
    const Allowed allowed(words);
    EXPECT_GE(recall_of(*index, model, queries, 10, 10, &allowed), 0.98);
    // Slots come back while there is nothing to learn from yet, and those removed before stay so afterwards.
    const auto one = std::span(values).subspan(200 * dimension, dimension);
    index->insert(more, one);
    model[7].assign(one.begin(), one.end());
    EXPECT_EQ(index->remove(std::vector<Slot>{9}), 1U);
    model[9].clear();
    const auto rest = std::span(values).subspan(201 * dimension);
    index->insert(consecutive_slots(99, 200), rest);
    enter(model, rest);
    EXPECT_EQ(index->size(), 296U);
    EXPECT_GE(recall_of(*index, model, queries, 10, 200), 0.9);
    EXPECT_FALSE(index->contains(9));
    index = load_index(index->save());
    EXPECT_GE(recall_of(*index, model, queries, 10, 200), 0.9);
    index->consolidate();
    EXPECT_EQ(index->remove(consecutive_slots(300)), 296U);
    EXPECT_EQ(index->size(), 0U);
}

TEST_P(Bits, learn_while_readers_search) {
    std::mt19937 random(23);
    const auto values = far_values(random, 600);
    const auto index = make_index(options_of(GetParam(), Storage::bit1));
    std::atomic<bool> stop{false};
    std::atomic<std::size_t> missed{0};
    std::atomic<std::size_t> there{0};
    const auto read = [&](unsigned seed) {
        std::mt19937 own(seed);
        while (!stop.load(std::memory_order_relaxed)) {
            const std::size_t count = there.load(std::memory_order_acquire);
            if (count != 0) {
                const auto query = std::span(values).subspan(own() % count * dimension, dimension);
                missed += index->search(query, 5, 64).slots.size() == std::min<std::size_t>(5, count) ? 0 : 1;
            }
        }
    };
    {
        std::jthread first(read, 1U);
        std::jthread second(read, 2U);
        for (std::size_t row = 0; row < 600; ++row) {
            index->insert(std::vector<Slot>{static_cast<Slot>(row)},
                          std::span(values).subspan(row * dimension, dimension));
            // From five on, so that a search that runs into an insert still has as many hits.
            there.store(row < 5 ? 0 : row, std::memory_order_release);
        }
        stop = true;
    }
    EXPECT_EQ(missed, 0U);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Bits, ::testing::Values(IndexKind::flat, IndexKind::ivf_flat, IndexKind::hnsw),
                         [](const auto& named) { return std::string(index_kind_name(named.param)); });

TEST(Hnsw, unlinks_a_little_with_each_change) {
    std::mt19937 random(24);
    constexpr std::size_t count = 3000;
    const auto values = clustered_values(random, count);
    const auto queries = clustered_values(random, 30);
    const auto index = make_index(options_of(IndexKind::hnsw, Storage::float32));
    index->insert(consecutive_slots(count), values, 2);
    Model model;
    enter(model, values);
    std::size_t freed_at_once = 0;
    std::size_t freed = 0;
    for (std::size_t round = 1; round <= 3000; ++round) {
        Slot slot = 0;
        do {
            slot = static_cast<Slot>(random() % count);
        } while (model[slot].empty());
        EXPECT_EQ(index->remove(std::vector<Slot>{slot}), 1U);
        model[slot].clear();
        // Less than two shares and what is being unlinked meanwhile wait for their turn.
        EXPECT_LE(index->stats().removed, count * 3 / 10);
        const auto free = index->take_free();
        freed += free.size();
        freed_at_once = std::max(freed_at_once, free.size());
        for (const Slot again : free) {
            const auto row = clustered_values(random, 1);
            index->insert(std::vector<Slot>{again}, row);
            model[again] = row;
            const Hits hits = index->search(row, 1, 100);
            ASSERT_EQ(hits.slots.size(), 1U);
            EXPECT_EQ(hits.slots[0], again) << "what was just inserted is found";
        }
        if (round % 500 == 0) {
            EXPECT_GE(recall_of(*index, model, queries, 10, 100), 0.93) << "after " << round;
            // In the middle of a sweep, most often.
            EXPECT_GE(recall_of(*load_index(index->save()), model, queries, 10, 100), 0.93) << "after " << round;
        }
    }
    EXPECT_GE(freed, 2000U);
    EXPECT_GE(freed_at_once, 2U);
    index->consolidate(2);
    EXPECT_EQ(index->stats().removed, 0U);
    EXPECT_GE(recall_of(*index, model, queries, 10, 100), 0.93);
}

TEST(Hnsw, finds_what_comes_where_all_was_removed) {
    std::mt19937 random(25);
    auto values = clustered_values(random, 5000);
    // Three hundred close together and far from all others, then gone: fewer than what a sweep waits for.
    for (std::size_t row = 0; row < 300; ++row) {
        for (std::size_t i = 0; i < dimension; ++i) {
            values[row * dimension + i] = 30.0F + 0.01F * values[row * dimension + i];
        }
    }
    const auto index = make_index(options_of(IndexKind::hnsw, Storage::float32));
    index->insert(consecutive_slots(5000), values);
    EXPECT_EQ(index->remove(consecutive_slots(300)), 300U);
    EXPECT_EQ(index->stats().removed, 300U);
    const std::vector<float> row(dimension, 30.0F);
    index->insert(consecutive_slots(1, 5000), row);
    EXPECT_EQ(index->search(row, 1, 400).slots, consecutive_slots(1, 5000));
    index->consolidate();
    EXPECT_EQ(index->take_free().size(), 300U);
    EXPECT_EQ(index->search(row, 1, 100).slots, consecutive_slots(1, 5000));
}

TEST(Hnsw, an_emptied_index_is_as_good_as_new) {
    std::mt19937 random(26);
    const auto index = make_index(options_of(IndexKind::hnsw, Storage::float32));
    for (std::size_t round = 0; round < 3; ++round) {
        const auto values = clustered_values(random, 500);
        index->insert(consecutive_slots(500), values);
        for (Slot slot = 0; slot < 500; ++slot) {
            EXPECT_EQ(index->search(std::span(values).subspan(slot * dimension, dimension), 1, 50).slots.at(0), slot);
        }
        // One after the other: sweeps are on their way when the last one goes.
        for (Slot slot = 0; slot < 500; ++slot) {
            EXPECT_EQ(index->remove(std::vector<Slot>{slot}), 1U);
        }
        EXPECT_EQ(index->size(), 0U);
        const std::vector<float> one(dimension, 1.0F);
        index->insert(consecutive_slots(1, 600), one);
        EXPECT_EQ(index->search(one, 10, 10).slots, consecutive_slots(1, 600));
        EXPECT_EQ(index->remove(consecutive_slots(1, 600)), 1U);
        index->consolidate();
    }
}

// A share that small says "at once"; once, the work per change was computed as 1 / share and did not fit (found by fuzzing).
TEST(Hnsw, unlinks_at_once_with_the_smallest_share) {
    std::mt19937 random(27);
    IndexOptions options = options_of(IndexKind::hnsw, Storage::float32);
    options.removed_share_max = std::numeric_limits<float>::denorm_min();
    const auto index = make_index(options);
    index->insert(consecutive_slots(200), clustered_values(random, 200));
    EXPECT_EQ(index->remove(consecutive_slots(50)), 50U);
    EXPECT_EQ(index->take_free().size(), 50U);
    EXPECT_EQ(index->stats().removed, 0U);
    EXPECT_EQ(index->search(clustered_values(random, 1), 10, 200).slots.size(), 10U);
}

}  // namespace
}  // namespace sage::vdb::testing
