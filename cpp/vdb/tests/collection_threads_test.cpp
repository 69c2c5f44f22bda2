// One writer and many readers: what readers see belongs together, and is never missing.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "collection_support.hpp"

namespace sage::vdb::testing {
namespace {

constexpr std::size_t dimension = 8;

std::chrono::milliseconds duration() {
    const char* wanted = std::getenv("SAGE_TEST_THREADS_MS");  // minutes, for a night
    return std::chrono::milliseconds(wanted == nullptr ? 1500 : std::stoi(wanted));
}

// Where document `id` lies, and in the last value which version it is.
std::vector<float> vector_of(std::int64_t id, std::int64_t version) {
    std::mt19937 random(static_cast<unsigned>(id));
    std::vector<float> vector = random_rows(random, 1, dimension);
    vector.back() = static_cast<float>(version % 1000) / 10'000.0F;
    return vector;
}

// Version v of document i: the vector says both, and so do metadata and text.
struct Versions {
    Numbers ids;
    std::vector<float> vectors;
    std::vector<Record> metadata;
    std::vector<std::optional<std::string>> texts;

    void put(std::int64_t id, std::int64_t version) {
        ids.push_back(id);
        const std::vector<float> vector = vector_of(id, version);
        vectors.insert(vectors.end(), vector.begin(), vector.end());
        metadata.push_back({{"id", id}, {"version", version}});
        texts.emplace_back("id" + std::to_string(id) + " version" + std::to_string(version));
    }
    [[nodiscard]] Documents view() const {
        return {.ids = span_of(ids), .vectors = vectors, .metadata = metadata, .texts = texts};
    }
};

void expect_whole(const DocumentList& documents, std::size_t i) {
    const std::int64_t id = std::get<Numbers>(documents.ids)[i];
    const auto& record = documents.metadata[i];
    ASSERT_EQ(record.size(), 2U);
    ASSERT_EQ(std::get<std::int64_t>(record[0].second), id);
    const auto version = std::get<std::int64_t>(record[1].second);
    const std::vector<float> vector(documents.vectors.begin() + static_cast<std::ptrdiff_t>(i * dimension),
                                    documents.vectors.begin() + static_cast<std::ptrdiff_t>((i + 1) * dimension));
    ASSERT_EQ(vector, vector_of(id, version));
    ASSERT_EQ(documents.texts[i], "id" + std::to_string(id) + " version" + std::to_string(version));
}

class CollectionThreads : public ::testing::TestWithParam<IndexKind> {};
INSTANTIATE_TEST_SUITE_P(Indexes, CollectionThreads, ::testing::Values(IndexKind::flat, IndexKind::graph, IndexKind::hnsw, IndexKind::ivf_flat));

TEST_P(CollectionThreads, EightReadersSeeWholeDocumentsAlways) {
    const bool graph = GetParam() != IndexKind::flat;
    const std::int64_t always = graph ? 1400 : 60;  // documents that are replaced but never removed
    Database database = Database::in_memory({});
    Collection collection = database.create_collection("docs", options_of(dimension, Metric::l2, GetParam()));
    Versions first;
    for (std::int64_t id = 0; id < always; ++id) {
        first.put(id, 0);
    }
    collection.add(first.view());
    std::atomic<bool> stop{false};
    std::atomic<std::int64_t> reads{0};
    std::atomic<std::int64_t> missed{0};
    std::vector<std::jthread> readers;
    for (unsigned reader = 0; reader < 8; ++reader) {
        readers.emplace_back([&, reader] {
            std::mt19937 random(reader);
            while (!stop.load() && !::testing::Test::HasFatalFailure()) {
                const auto id = static_cast<std::int64_t>(random()) % always;
                const std::vector<float> query = vector_of(id, 500);
                const Include all{true, true, true};
                const SearchHits hits = collection.search({.queries = query, .k = 3, .include = all});
                for (std::size_t i = 0; i < hits.scores.size(); ++i) {
                    expect_whole(hits.documents, i);
                }
                // The graph may miss one now and then, a scan may not.
                const bool found = !hits.scores.empty() && numbers_of(hits)[0] == id;
                missed += found ? 0 : 1;
                const DocumentList list = collection.get(span_of(Numbers{id}), all);
                ASSERT_EQ(list.size(), 1U);
                expect_whole(list, 0);
                const SearchHits filtered = collection.search(
                    {.queries = query, .k = 5, .filter = field("id") == Value(id), .include = all});
                ASSERT_EQ(filtered.scores.size(), 1U);
                expect_whole(filtered.documents, 0);
                const SearchHits words = collection.search({.texts = Texts{"id" + std::to_string(id)}, .k = 5, .include = all});
                ASSERT_EQ(words.scores.size(), 1U);
                expect_whole(words.documents, 0);
                ++reads;
            }
        });
    }
    std::mt19937 random(99);
    const auto end = std::chrono::steady_clock::now() + duration();
    std::int64_t version = 0;
    while (std::chrono::steady_clock::now() < end) {
        Versions next;
        ++version;
        const auto kept = static_cast<std::int64_t>(random()) % always;
        next.put(kept, version);
        const std::int64_t passing = always + static_cast<std::int64_t>(random() % 50);
        next.put(passing, version);
        collection.upsert(next.view());
        // Read your writes.
        const std::vector<float> query = vector_of(passing, version);
        const SearchHits hits = collection.search(
            {.queries = query, .k = 1, .recall = 1, .include = {.vectors = true, .metadata = true, .text = true}});
        ASSERT_EQ(numbers_of(hits), Numbers{passing});
        ASSERT_EQ(std::get<std::int64_t>(hits.documents.metadata[0][1].second), version);
        collection.remove(span_of(Numbers{passing}));
        ASSERT_FALSE(collection.contains(passing));
        if (version % 50 == 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));  // everybody has a turn on few cores
        }
    }
    stop = true;
    readers.clear();
    EXPECT_GT(reads.load(), 10);
    EXPECT_GT(version, 10);
    EXPECT_LE(missed.load(), graph ? reads.load() / 50 : 0);
    EXPECT_EQ(collection.count(), static_cast<std::size_t>(always));
    collection.compact(1);
    EXPECT_LT(collection.stats().removed, 50U);
}

TEST(DatabaseThreads, WritersCheckpointsAndBackupsAtOnce) {
    TemporaryFolder folder;
    constexpr int writers = 4;
    std::vector<std::int64_t> last(writers, 0);
    {
        DatabaseOptions options;
        options.checkpoint_log_bytes = 20'000;
        Database database = Database::open(folder.file("db"), options);
        Collection shared = database.create_collection("shared", options_of(dimension, Metric::l2));
        std::atomic<bool> stop{false};
        std::vector<std::jthread> threads;
        for (int writer = 0; writer < writers; ++writer) {
            threads.emplace_back([&, writer] {
                Collection own = database.create_collection("own" + std::to_string(writer), options_of(dimension, Metric::l2));
                for (std::int64_t i = 1; !stop.load(); ++i) {
                    Versions one;
                    one.put(i, writer);
                    own.add(one.view());
                    Versions two;
                    two.put(i * writers + writer, i);
                    shared.add(two.view());
                    last[static_cast<std::size_t>(writer)] = i;
                }
            });
        }
        for (int i = 0; i < 5; ++i) {
            std::this_thread::sleep_for(duration() / 10);
            const std::string path = folder.file("backup" + std::to_string(i));
            database.backup(path);
            const VerifyReport report = Database::verify(path);
            EXPECT_GE(report.documents, 1U);
            database.checkpoint();
        }
        stop = true;
        threads.clear();
        EXPECT_EQ(database.stats().background_error, "");
        EXPECT_GE(database.stats().generation, 5U);
    }
    const Database database = Database::open(folder.file("db"), {});
    std::size_t total = 0;
    for (int writer = 0; writer < writers; ++writer) {
        const auto count = static_cast<std::size_t>(last[static_cast<std::size_t>(writer)]);
        EXPECT_EQ(database.collection("own" + std::to_string(writer)).count(), count);
        total += count;
    }
    EXPECT_EQ(database.collection("shared").count(), total);
}

}  // namespace
}  // namespace sage::vdb::testing
