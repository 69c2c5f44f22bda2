// One writer and two readers on every kind, for ThreadSanitizer above all.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "index_support.hpp"

namespace sage::vdb::testing {
namespace {

class Threads : public ::testing::TestWithParam<std::pair<IndexKind, Storage>> {};

// A vector says whose it is: a reader that meets a row under the wrong slot, or half of it, sees that.
std::vector<float> marked(Slot slot, std::size_t generation) {
    std::vector<float> vector(index_dimension, static_cast<float>(slot % 97));
    vector[0] = static_cast<float>(slot % 251);
    vector[1] = static_cast<float>(generation % 16);
    return vector;
}

TEST_P(Threads, readers_see_whole_rows_while_one_writes) {
    constexpr std::size_t count = 1200;
    IndexOptions options;
    options.dimension = index_dimension;
    options.metric = Metric::l2;
    options.kind = GetParam().first;
    options.storage = GetParam().second;
    options.links = 8;
    options.build_effort = 24;
    const auto index = make_index(options);
    for (Slot slot = 0; slot < count; ++slot) {
        index->insert(std::vector<Slot>{slot}, marked(slot, 0));
    }
    std::atomic<bool> stop{false};
    std::atomic<std::size_t> searches{0};
    std::atomic<std::size_t> wrong{0};
    const auto read = [&](unsigned seed) {
        std::mt19937 random(seed);
        std::vector<float> stored(index_dimension);
        while (!stop.load(std::memory_order_relaxed)) {
            const auto slot = static_cast<Slot>(random() % count);
            const auto query = marked(slot, 0);
            for (const Slot hit : index->search(query, 5, 16).slots) {
                wrong += hit < count ? 0 : 1;
            }
            if (index->get(slot, stored) && GetParam().second == Storage::float32 &&
                (stored[0] != static_cast<float>(slot % 251) || stored[5] != static_cast<float>(slot % 97))) {
                ++wrong;
            }
            ++searches;
        }
    };
    {
        std::jthread first(read, 1U);
        std::jthread second(read, 2U);
        std::mt19937 random(3);
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
        const auto enough = [&](std::size_t round) {
            return round > 25 || (round > 5 && std::chrono::steady_clock::now() >= end);
        };
        for (std::size_t round = 1; !enough(round) || searches < 50; ++round) {
            std::vector<Slot> gone;
            for (std::size_t i = 0; i < 40; ++i) {
                gone.push_back(static_cast<Slot>(random() % count));
            }
            index->remove(gone);
            if (round % 5 == 0) {
                index->consolidate();
            }
            std::vector<float> values;
            const std::vector<Slot> free = index->take_free();
            for (const Slot slot : free) {
                const auto vector = marked(slot, round);
                values.insert(values.end(), vector.begin(), vector.end());
            }
            index->insert(free, values);
            ASSERT_LT(round, 100'000U);
        }
        stop = true;
    }
    EXPECT_EQ(wrong, 0U);
    index->consolidate();
    const auto last = index->take_free();
    EXPECT_EQ(index->size() + last.size(), count);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Threads,
                         ::testing::Values(std::pair{IndexKind::flat, Storage::float32},
                                           std::pair{IndexKind::flat, Storage::bit1},
                                           std::pair{IndexKind::ivf_flat, Storage::float32},
                                           std::pair{IndexKind::ivf_flat, Storage::int8},
                                           std::pair{IndexKind::hnsw, Storage::float32}),
                         [](const auto& named) {
                             return std::string(index_kind_name(named.param.first)) + "_" +
                                    std::string(storage_name(named.param.second));
                         });

}  // namespace
}  // namespace sage::vdb::testing
