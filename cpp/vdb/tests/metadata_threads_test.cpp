// Readers beside the writer, for ThreadSanitizer and for what they must see: whole batches.
#include <atomic>
#include <chrono>
#include <thread>

#include "metadata_support.hpp"

namespace sage::vdb {
namespace {

// A batch gives all slots the same round; a snapshot with two rounds in it would have seen half of one.
TEST(MetadataThreads, ReadersSeeWholeBatchesInEveryFieldAndIndex) {
    constexpr Slot slots = 64;
    Metadata metadata;
    const auto write = [&metadata](std::int64_t round) {
        MetadataBatch batch = metadata.begin();
        for (Slot slot = 0; slot < slots; ++slot) {
            batch.replace(slot, {{"round", round},
                                 {"name", std::to_string(round)},
                                 {"tags", Strings{std::to_string(round), "all"}},
                                 {"even", round % 2 == 0}});
        }
        batch.commit();
    };
    write(0);
    std::atomic<bool> stop = false;
    std::atomic<int> reads = 0;
    std::vector<std::jthread> readers;
    for (int reader = 0; reader < 3; ++reader) {
        readers.emplace_back([&] {
            std::int64_t last = 0;
            while (!stop) {
                const MetadataSnapshot snapshot = metadata.snapshot();
                const auto round = std::get<std::int64_t>(*snapshot.get(0, "round"));
                EXPECT_GE(round, last);
                last = round;
                const Filter filter = field("round") == round && field("name") == std::to_string(round) &&
                                      field("tags").contains(std::to_string(round)) && field("even") == (round % 2 == 0);
                const BoundFilter bound(snapshot, filter);
                EXPECT_EQ(bound.evaluate().count(), slots);
                EXPECT_TRUE(bound.matches(slots - 1));
                ++reads;
            }
        });
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    for (std::int64_t round = 1; round < 300 && (round < 10 || std::chrono::steady_clock::now() < end); ++round) {
        write(round);
    }
    while (reads < 10) {
        std::this_thread::yield();
    }
    stop = true;
}

}  // namespace
}  // namespace sage::vdb
