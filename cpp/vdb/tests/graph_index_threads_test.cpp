// Searches while the index changes: run it under ThreadSanitizer.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "sage/vdb/graph_index.hpp"
#include "support.hpp"

namespace sage::vdb {
namespace {

constexpr std::size_t dimension = 16;
constexpr Slot kept = 600;

// The vector of a slot tells the slot: a search that gives another slot's score has read a row while it was written.
std::vector<float> vector_of(Slot slot, unsigned version) {
    std::mt19937 random(slot * 2654435761U + version);
    auto values = testing::random_values(random, dimension);
    values[0] = static_cast<float>(version % 1000);
    return values;
}

TEST(GraphIndexThreads, SearchesGoOnWhileSlotsAreReused) {
    GraphIndex index(dimension, Metric::l2);
    // From the first vector on: also while the index learns and builds its graph.
    std::atomic<bool> stop{false};
    std::atomic<Slot> inserted{0};
    std::atomic<std::size_t> searches{0};
    std::atomic<std::size_t> missed{0};
    std::vector<std::jthread> readers;
    for (unsigned reader = 0; reader < 3; ++reader) {
        readers.emplace_back([&, reader] {
            std::mt19937 random(reader);
            while (!stop) {
                const Slot there = inserted;
                if (there == 0) {
                    continue;
                }
                const Slot slot = static_cast<Slot>(random() % std::min(there, kept));
                const auto query = vector_of(slot, 0);
                std::vector<float> stored(dimension);
                EXPECT_TRUE(index.get(slot, stored));
                const GraphHits hits = index.search(query, 5, 40);
                EXPECT_GE(hits.slots.size(), std::min<std::size_t>(there, 5U));
                missed += hits.slots.empty() || hits.slots[0] != slot ? 1 : 0;
                for (std::size_t i = 0; i < hits.slots.size(); ++i) {
                    EXPECT_TRUE(std::isfinite(hits.scores[i]));
                }
                ++searches;
            }
        });
    }
    std::vector<Slot> live;
    for (Slot slot = 0; slot < 1400; ++slot) {
        index.insert(std::vector<Slot>{slot}, vector_of(slot, 0), slot == GraphIndex::train_size - 1 ? 2 : 1);
        inserted = slot + 1;
        if (slot >= kept) {
            live.push_back(slot);
        }
    }
    std::mt19937 random(77);
    std::vector<Slot> free;
    Slot next = 1400;
    // Until every slot was used again once, or as far as a slow machine comes.
    const auto enough = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    for (unsigned turn = 1; turn <= 1500 && std::chrono::steady_clock::now() < enough; ++turn) {
        const std::size_t at = random() % live.size();
        index.remove(std::vector<Slot>{live[at]});
        const auto taken = index.take_free();
        free.insert(free.end(), taken.begin(), taken.end());
        live[at] = free.empty() ? next++ : free.back();
        if (!free.empty()) {
            free.pop_back();
        }
        index.insert(std::vector<Slot>{live[at]}, vector_of(live[at], turn));
        if (turn == 1000) {
            index.consolidate(2);
        }
    }
    while (searches < 100 && std::chrono::steady_clock::now() < enough) {
        std::this_thread::yield();
    }
    stop = true;
    readers.clear();
    EXPECT_EQ(index.size(), 1400U);
    EXPECT_LE(static_cast<double>(missed), 0.02 * static_cast<double>(searches));
    EXPECT_LT(next, 1400U + 700U);
}

// Slots [from, to) with their vectors of version 0.
void insert_range(GraphIndex& index, Slot from, Slot to) {
    std::vector<Slot> slots;
    std::vector<float> vectors;
    for (Slot slot = from; slot < to; ++slot) {
        slots.push_back(slot);
        const auto vector = vector_of(slot, 0);
        vectors.insert(vectors.end(), vector.begin(), vector.end());
    }
    index.insert(slots, vectors);
}

TEST(GraphIndexThreads, FilteredSearchesGoOnWhileListsAreMadeAnew) {
    // From 1000 to more than four times as many: the lists are made anew on the way, and their places used again.
    constexpr Slot first = 1000;
    constexpr Slot total = 4400;
    constexpr Slot step = 200;
    GraphIndex index(dimension, Metric::l2);
    insert_range(index, 0, first);
    const std::vector<std::uint64_t> even((total + 63) / 64, 0x5555555555555555U);
    const std::vector<std::uint64_t> all((total + 63) / 64, ~std::uint64_t{0});
    std::atomic<bool> stop{false};
    std::atomic<std::size_t> searches{0};
    std::atomic<std::size_t> missed{0};
    std::vector<std::jthread> readers;
    for (unsigned reader = 0; reader < 2; ++reader) {
        readers.emplace_back([&, reader] {
            std::mt19937 random(reader);
            while (!stop) {
                const Slot slot = static_cast<Slot>(random() % (first / 2)) * 2;
                const GraphHits hits = index.search(vector_of(slot, 0), 5, 40, reader == 0 ? even : all);
                missed += hits.slots.empty() || hits.slots[0] != slot ? 1 : 0;
                for (const Slot hit : hits.slots) {
                    EXPECT_TRUE(reader == 1 || hit % 2 == 0);
                }
                ++searches;
            }
        });
    }
    // By time: a machine that is slow comes less far, and what it did is looked at all the same.
    const auto enough = std::chrono::steady_clock::now() + std::chrono::seconds(4);
    Slot end = first;
    for (; end < total && std::chrono::steady_clock::now() < enough; end += step) {
        insert_range(index, end, end + step);
        if (end >= 1600) {
            std::vector<Slot> gone(100);
            std::iota(gone.begin(), gone.end(), end - 600);
            index.remove(gone);
            index.consolidate();
            for (const Slot free : index.take_free()) {
                index.insert(std::vector<Slot>{free}, vector_of(free, 0));
            }
        }
    }
    while (searches == 0 && std::chrono::steady_clock::now() < enough) {
        std::this_thread::yield();
    }
    stop = true;
    readers.clear();
    EXPECT_LE(static_cast<double>(missed), 0.02 * static_cast<double>(searches));
    // Whatever came, went and came again is found in its list, once.
    std::size_t found = 0;
    std::size_t looked = 0;
    for (Slot slot = 0; slot < end; slot += 3) {
        if (!index.contains(slot)) {
            continue;  // its slot was not free in time
        }
        const GraphHits hits = index.search(vector_of(slot, 0), 5, 40, all);
        ++looked;
        found += !hits.slots.empty() && hits.slots[0] == slot ? 1 : 0;
        for (std::size_t i = 1; i < hits.slots.size(); ++i) {
            EXPECT_NE(hits.slots[i], hits.slots[0]);
        }
    }
    EXPECT_GT(looked, first / 4);
    EXPECT_GT(static_cast<double>(found), 0.98 * static_cast<double>(looked));
}

TEST(GraphIndexThreads, BatchesAreSpreadOverThreads) {
    std::mt19937 random(5);
    GraphIndex index(dimension, Metric::cosine);
    std::vector<Slot> slots(1200);
    for (Slot slot = 0; slot < slots.size(); ++slot) {
        slots[slot] = slot;
    }
    index.insert(slots, testing::random_values(random, slots.size() * dimension), 4);
    const auto queries = testing::random_values(random, 101 * dimension);
    std::vector<Slot> found(101 * 10);
    std::vector<float> scores(101 * 10);
    std::vector<std::size_t> counts(101);
    index.search_batch(queries, 10, 50, found.data(), scores.data(), counts.data(), 4);
    for (std::size_t i = 0; i < 101; ++i) {
        const GraphHits alone = index.search(std::span(queries).subspan(i * dimension, dimension), 10, 50);
        ASSERT_EQ(counts[i], alone.slots.size());
        for (std::size_t j = 0; j < counts[i]; ++j) {
            EXPECT_EQ(found[i * 10 + j], alone.slots[j]);
            EXPECT_EQ(scores[i * 10 + j], alone.scores[j]);
        }
    }
}

}  // namespace
}  // namespace sage::vdb
