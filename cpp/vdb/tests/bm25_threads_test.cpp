// Searches beside the writer, for ThreadSanitizer and for what they must see: whole batches.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "sage/vdb/bm25.hpp"

namespace sage::vdb {
namespace {

TEST(Bm25Threads, SearchesSeeWholeBatches) {
    constexpr Slot slots = 40;
    Bm25Index index;
    // All documents of a round are alike, so a search that saw two rounds would see two scores.
    const auto write = [&index](int round) {
        Bm25Batch batch = index.begin();
        for (Slot slot = 0; slot < slots; ++slot) {
            std::string text = "common r" + std::to_string(round);
            for (int i = 0; i < round % 5; ++i) {
                text += " common filler";
            }
            batch.replace(slot, text);
        }
        batch.commit();
    };
    write(0);
    std::atomic<bool> stop = false;
    std::atomic<int> searches = 0;
    std::vector<std::jthread> readers;
    for (int reader = 0; reader < 3; ++reader) {
        readers.emplace_back([&] {
            while (!stop) {
                const auto hits = index.snapshot().search("common", 100);
                EXPECT_EQ(hits.size(), slots);
                EXPECT_EQ(hits.front().score, hits.back().score);
                EXPECT_EQ(hits.front().slot, 0U);
                ++searches;
            }
        });
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    for (int round = 1; round < 200 && (round < 10 || std::chrono::steady_clock::now() < end); ++round) {
        write(round);
    }
    while (searches < 10) {
        std::this_thread::yield();
    }
    stop = true;
}

}  // namespace
}  // namespace sage::vdb
