// Many readers and one writer, for ThreadSanitizer and for the invariant that they must see.
#include <atomic>
#include <chrono>
#include <thread>

#include "support.hpp"

namespace sage::vdb {
namespace {

using Floats = std::vector<float>;
using Ids = std::vector<Id>;

constexpr std::size_t dimension = 16;
constexpr std::size_t batch = 32;

// Every vector says which id it belongs to: all its values are the id.
Floats vectors_of(const Ids& ids) {
    Floats vectors;
    for (const Id id : ids) {
        vectors.insert(vectors.end(), dimension, static_cast<float>(id));
    }
    return vectors;
}

// The writer adds and removes whole batches, so that a reader who saw half of one would see a size that is no multiple.
TEST(FlatIndexThreads, ReadersSeeWholeBatchesWhileAWriterChangesThem) {
    FlatIndex index(dimension, Metric::l2);
    index.add(testing::consecutive_ids(batch), vectors_of(testing::consecutive_ids(batch)));
    std::atomic<bool> stop = false;
    std::atomic<int> searches = 0;
    std::vector<std::jthread> readers;
    for (int reader = 0; reader < 3; ++reader) {
        readers.emplace_back([&, reader] {
            while (!stop) {
                const SearchResult found = index.search(Floats(dimension, static_cast<float>(reader)), 1000);
                EXPECT_EQ(found.per_query % batch, 0U);
                // Batch 0 is never removed: the nearest to a value of it is its id, at distance 0.
                EXPECT_EQ(found.ids.at(0), reader);
                EXPECT_EQ(found.scores.at(0), 0.0F);
                const Rows rows = index.rows();
                EXPECT_EQ(rows.vectors, vectors_of(rows.ids));
                EXPECT_TRUE(index.contains(reader));
                EXPECT_EQ(index.size() % batch, 0U);
                ++searches;
            }
        });
    }
    std::jthread writer([&] {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
        for (int turn = 0; turn < 300 && (turn < 10 || std::chrono::steady_clock::now() < end); ++turn) {
            const Ids ids = testing::consecutive_ids(batch, static_cast<Id>(batch) * (1 + turn % 7));
            if (index.contains(ids.front())) {
                EXPECT_EQ(index.remove(ids), batch);
            } else {
                index.add(ids, vectors_of(ids));
            }
            index.upsert(testing::consecutive_ids(batch), vectors_of(testing::consecutive_ids(batch)));
        }
    });
    writer.join();
    // On a busy machine the writer may be done before the readers have begun.
    while (searches < 10) {
        std::this_thread::yield();
    }
    stop = true;
    readers.clear();
    EXPECT_EQ(index.size() % batch, 0U);
}

TEST(FlatIndexThreads, WritersDoNotLoseEachOthersRows) {
    FlatIndex index(dimension, Metric::cosine);
    std::vector<std::jthread> writers;
    for (Id writer = 0; writer < 4; ++writer) {
        writers.emplace_back([&index, writer] {
            for (Id turn = 0; turn < 50; ++turn) {
                const Ids ids = testing::consecutive_ids(batch, (writer * 50 + turn) * static_cast<Id>(batch));
                index.add(ids, vectors_of(ids));
            }
        });
    }
    writers.clear();
    EXPECT_EQ(index.size(), 4U * 50U * batch);
    const Rows rows = index.rows();
    EXPECT_EQ(rows.vectors, vectors_of(rows.ids));
}

}  // namespace
}  // namespace sage::vdb
