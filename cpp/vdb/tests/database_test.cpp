#include "sage/vdb/database.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <numeric>
#include <set>
#include <thread>

#include "collection_support.hpp"
#include "sage/common/testing/fault_file_system.hpp"
#include "sage/common/testing/killed_program.hpp"

namespace sage::vdb::testing {
namespace {

TEST(Database, KeepsWhatWasWritten) {
    TemporaryFolder folder;
    {
        Database database = Database::open(folder.file("db"));
        add_rows(database.create_collection("docs", options_of(2, Metric::cosine)), {1, 2}, {1, 0, 0, 1});
        database.create_collection("gone", options_of(2, Metric::cosine));
        database.drop_collection("gone");
        database.rename_collection("docs", "papers");
    }
    const Database database = Database::open(folder.file("db"));
    EXPECT_EQ(database.collection_names(), Texts{"papers"});
    EXPECT_EQ(database.collection("papers").options().metric, Metric::cosine);
    const std::vector<float> query{0, 1};
    EXPECT_EQ(numbers_of(database.collection("papers").search({.queries = query})), (Numbers{2, 1}));
}

TEST(Database, ASecondWriterIsRefusedAndAReaderIsNot) {
    TemporaryFolder folder;
    Database database = Database::open(folder.file("db"));
    Collection collection = database.create_collection("docs", options_of(1, Metric::l2));
    add_rows(collection, {1}, {1});
    expect_failure<StoreLocked>([&] { static_cast<void>(Database::open(folder.file("db"))); },
                                std::to_string(getpid()));
    const Database reader = Database::open(folder.file("db"), {.read_only = true});
    EXPECT_EQ(reader.collection("docs").count(), 1U);
    add_rows(collection, {2}, {2});
    EXPECT_EQ(reader.collection("docs").count(), 1U);
    EXPECT_EQ(collection.count(), 2U);
}

TEST(Database, AClosedOneCanBeReadAndNotChanged) {
    TemporaryFolder folder;
    Database database = Database::open(folder.file("db"));
    Collection collection = database.create_collection("docs", options_of(1, Metric::l2));
    add_rows(collection, {1}, {1});
    database.close();
    database.close();
    EXPECT_EQ(collection.count(), 1U);
    expect_failure<InvalidArgument>([&] { add_rows(collection, {2}, {2}); }, "the database is closed");
    expect_failure<InvalidArgument>([&] { database.sync(); }, "the database is closed");
    EXPECT_EQ(Database::open(folder.file("db")).collection("docs").count(), 1U);
}

TEST(Database, ACollectionKeepsItOpen) {
    TemporaryFolder folder;
    {
        const Collection collection =
            Database::open(folder.file("db")).create_collection("docs", options_of(1, Metric::l2));
        add_rows(collection, {1}, {1});
    }
    EXPECT_EQ(Database::open(folder.file("db")).collection("docs").count(), 1U);
}

TEST(Database, AForkedChildReadsAndMustNotWrite) {
    TemporaryFolder folder;
    Database database = Database::open(folder.file("db"));
    Collection collection = database.create_collection("docs", options_of(1, Metric::l2));
    add_rows(collection, {1}, {1});
    const pid_t child = fork();
    if (child == 0) {
        int code = 1;
        try {
            add_rows(collection, {2}, {2});
        } catch (const StoreLocked&) {
            const std::vector<float> query{0};
            code = collection.search({.queries = query}).scores.size() == 1 ? 0 : 2;
        } catch (...) {
            code = 3;
        }
        {
            // What a child destroys must not hang, nor touch its parent's files.
            const Collection last = std::move(collection);
            const Database moved = std::move(database);
        }
        _exit(code);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
    add_rows(collection, {2}, {2});
    EXPECT_EQ(collection.count(), 2U);
}

TEST(Database, ABackupIsACopyOfItsMoment) {
    TemporaryFolder folder;
    Database database = Database::in_memory();
    Collection collection = database.create_collection("docs", options_of(1, Metric::l2));
    add_rows(collection, {1}, {1});
    database.backup(folder.file("copy"));
    add_rows(collection, {2}, {2});
    expect_failure<InvalidArgument>([&] { database.backup(folder.file("copy")); }, "there is a store");
    EXPECT_EQ(Database::verify(folder.file("copy")).documents, 1U);
    Database copy = Database::open(folder.file("copy"));
    add_rows(copy.collection("docs"), {3}, {3});
    EXPECT_EQ(copy.collection("docs").count(), 2U);
    EXPECT_EQ(collection.count(), 2U);
}

TEST(Database, ACollectionAloneIsBackedUp) {
    TemporaryFolder folder;
    Database database = Database::in_memory();
    Collection collection = database.create_collection("docs", options_of(1, Metric::l2));
    add_rows(database.create_collection("others", options_of(1, Metric::l2)), {7}, {7});
    add_rows(collection, {1, 2}, {1, 2});
    collection.backup(folder.file("copy"));
    expect_failure<InvalidArgument>([&] { collection.backup(folder.file("copy")); }, "there is a store");
    const Database copy = Database::open(folder.file("copy"));
    EXPECT_EQ(copy.collection_names(), Texts{"docs"});
    EXPECT_EQ(copy.collection("docs").count(), 2U);
    database.drop_collection("docs");
    expect_failure<NotFound>([&] { collection.backup(folder.file("late")); }, "'docs' was dropped");
    EXPECT_FALSE(std::filesystem::exists(folder.file("late")));
}

TEST(Database, WritersGoOnWhileACheckpointIsWritten) {
    storage::testing::FaultFileSystem files;
    DatabaseOptions options;
    options.files = &files;
    options.sync = storage::SyncPolicy::none;
    options.checkpoint_at_close = false;
    std::int64_t written = 0;
    {
        Database database = Database::open("db", options);
        Collection collection = database.create_collection("docs", options_of(1, Metric::l2));
        add_rows(collection, {0}, {0});
        std::atomic<std::int64_t> last{0};
        std::atomic<bool> stop{false};
        std::jthread writer([&] {
            while (!stop.load()) {
                add_rows(collection, {last + 1}, {1});
                ++last;
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
        });
        files.set_sync_hook([] { std::this_thread::sleep_for(std::chrono::milliseconds(200)); });
        const std::int64_t before = last;
        database.checkpoint();
        EXPECT_GE(last - before, 10);
        files.set_sync_hook({});
        stop = true;
        writer.join();
        written = last;
        EXPECT_GT(database.stats().log_bytes, 0U);  // what came after the moment that the snapshot holds
    }
    const auto after = files.after_kill();
    options.files = after.get();
    const Database database = Database::open("db", options);
    EXPECT_EQ(database.collection("docs").count(), static_cast<std::size_t>(written + 1));
}

TEST(Database, RestoringIsOneStepForReaders) {
    TemporaryFolder folder;
    Database source = Database::in_memory();
    for (const char* name : {"a", "b"}) {
        add_rows(source.create_collection(name, options_of(1, Metric::l2)), {10, 11, 12}, {10, 11, 12});
    }
    source.backup(folder.file("backup"));
    Database database = Database::open(folder.file("db"));
    std::vector<Collection> old;
    for (const char* name : {"a", "b", "c"}) {
        old.push_back(database.create_collection(name, options_of(1, Metric::l2)));
        add_rows(old.back(), {1}, {1});
    }
    expect_failure<NotFound>([&] { database.restore(folder.file("nowhere")); }, "nowhere");
    expect_failure<InvalidArgument>([&] { database.restore(folder.file("db")); }, "is no backup");
    EXPECT_EQ(database.collection_names(), (Texts{"a", "b", "c"}));
    std::atomic<bool> stop{false};
    std::jthread reader([&] {
        while (!stop.load()) {
            const Texts names = database.collection_names();
            EXPECT_TRUE(names.size() == 3 || names == (Texts{"a", "b"}));
            EXPECT_EQ(old.front().count(), 1U);
        }
    });
    database.restore(folder.file("backup"));
    stop = true;
    reader.join();
    expect_failure<NotFound>([&] { add_rows(old.front(), {2}, {2}); }, "was dropped");
    add_rows(database.collection("a"), {13}, {13});
    database.create_collection("d", options_of(1, Metric::l2));
    database.close();
    const Database again = Database::open(folder.file("db"));
    EXPECT_EQ(again.collection_names(), (Texts{"a", "b", "d"}));
    EXPECT_EQ(again.collection("a").count(), 4U);
    const std::vector<float> query{12};
    EXPECT_EQ(numbers_of(again.collection("b").search({.queries = query, .k = 1})), Numbers{12});
}

TEST(Database, ARestoringThatCrashesLeavesTheOldOrTheNew) {
    storage::testing::FaultFileSystem files;
    DatabaseOptions options = quiet();
    options.files = &files;
    options.checkpoint_at_close = false;
    {
        Database source = Database::open("source", options);
        add_rows(source.create_collection("new", options_of(1, Metric::l2)), {1, 2}, {1, 2});
        source.backup("backup");
        Database database = Database::open("db", options);
        add_rows(database.create_collection("old", options_of(1, Metric::l2)), {1}, {1});
    }
    std::set<Texts> seen;
    for (std::uint64_t step = 0; step < 60; ++step) {
        const auto now = files.after_kill();
        options.files = now.get();
        bool crashed = false;
        try {
            Database database = Database::open("db", options);
            now->crash_at(now->operations() + step);
            database.restore("backup");
        } catch (const storage::testing::SimulatedCrash&) {
            crashed = true;
        }
        const auto after = crashed ? now->after_crash(step) : now->after_kill();
        options.files = after.get();
        const Database database = Database::open("db", options);
        const Texts names = database.collection_names();
        ASSERT_EQ(names.size(), 1U);
        ASSERT_EQ(database.collection(names[0]).count(), names[0] == "new" ? 2U : 1U) << "step " << step;
        seen.insert(names);
        if (!crashed) {
            EXPECT_EQ(names, Texts{"new"});
            break;
        }
    }
    EXPECT_EQ(seen.size(), 2U);
}

// What get() gives for the vectors of `ids`.
std::vector<float> vectors_of(const Database& database, const Numbers& ids) {
    return database.collection("docs").get(span_of(ids), {true, false, false}).vectors;
}

void expect_same_bits(const std::vector<float>& found, const std::vector<float>& given) {
    ASSERT_EQ(found.size(), given.size());
    for (std::size_t i = 0; i < given.size(); ++i) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(found[i]), std::bit_cast<std::uint32_t>(given[i])) << "value " << i;
    }
}

TEST(Database, VectorsUnderCosineComeBackBitByBit) {
    constexpr std::size_t dimension = 19;
    constexpr std::size_t count = 1500;  // enough for an index
    TemporaryFolder folder;
    std::mt19937 random(11);
    std::vector<float> rows = random_rows(random, count, dimension);
    Numbers ids(count);
    std::iota(ids.begin(), ids.end(), 0);
    for (std::size_t i = 0; i < count; ++i) {
        // Of all lengths, also such as only the smallest floats have.
        const float scale = std::pow(10.0F, static_cast<float>(static_cast<int>(i % 70) - 52));
        std::transform(rows.begin() + static_cast<std::ptrdiff_t>(i * dimension),
                       rows.begin() + static_cast<std::ptrdiff_t>((i + 1) * dimension),
                       rows.begin() + static_cast<std::ptrdiff_t>(i * dimension), [scale](float x) { return x * scale; });
        rows[i * dimension + i % dimension] = i % 3 == 0 ? -0.0F : 1e-38F;
    }
    for (const IndexKind kind : {IndexKind::graph, IndexKind::flat}) {
        const std::string path = folder.file(std::string(index_kind_name(kind)));
        DatabaseOptions options = quiet();
        options.checkpoint_at_close = false;
        {
            Database database = Database::open(path, options);
            Collection collection = database.create_collection("docs", options_of(dimension, Metric::cosine, kind));
            add_rows(collection, ids, rows);
            expect_same_bits(vectors_of(database, ids), rows);
        }
        {
            Database database = Database::open(path, options);  // from the log
            expect_same_bits(vectors_of(database, ids), rows);
            database.collection("docs").compact();
            expect_same_bits(vectors_of(database, ids), rows);  // from the index
            const std::vector<float> other(rows.begin() + dimension, rows.begin() + 2 * dimension);
            database.collection("docs").upsert({.ids = span_of(Numbers{0}), .vectors = other});
            database.collection("docs").remove(span_of(Numbers{5}));
            database.checkpoint();
        }
        Database database = Database::open(path, options);  // from the snapshot
        expect_same_bits(vectors_of(database, {0, 1}), [&] {
            std::vector<float> twice(rows.begin() + dimension, rows.begin() + 2 * dimension);
            twice.insert(twice.end(), twice.begin(), twice.begin() + dimension);
            return twice;
        }());
        expect_same_bits(vectors_of(database, Numbers(ids.begin() + 6, ids.end())),
                         {rows.begin() + 6 * dimension, rows.end()});
    }
}

// The writer adds documents and prints the last number when it was acknowledged.
TEST(KilledDatabase, LosesNothingThatItAcknowledged) {
    TemporaryFolder folder;
    std::mt19937 random(7);
    std::int64_t acknowledged = -1;
    for (int turn = 0; turn < 12; ++turn) {
        const std::string text = storage::testing::output_until_killed(
            SAGE_VDB_KILL_WRITER, folder.file("db"), std::chrono::milliseconds(random() % 150));
        const std::size_t last = text.rfind('\n', text.size() - 2);
        acknowledged = std::max<std::int64_t>(acknowledged, std::stoll(text.substr(last == std::string::npos ? 0 : last + 1)));
        static_cast<void>(Database::verify(folder.file("db")));
        const Database database = Database::open(folder.file("db"), {.read_only = true});
        const Collection collection = database.collection("docs");
        const auto count = static_cast<std::int64_t>(collection.count());
        ASSERT_GE(count, acknowledged + 1) << "turn " << turn;
        // No half batch: documents come in pairs n and -n - 1, in two calls' worth of rows.
        const DocumentList all = collection.scroll({.limit = Collection::k_max, .include = {true, true, true}});
        for (std::size_t i = 0; i < all.size(); ++i) {
            const std::int64_t id = std::get<Numbers>(all.ids)[i];
            ASSERT_TRUE(collection.contains(-id - 1)) << id;
            ASSERT_EQ(all.vectors[i * 2], static_cast<float>(id));
            ASSERT_EQ(all.texts[i], "text " + std::to_string(id));
        }
    }
    // Every turn went on behind the one before: a line of two documents each at least.
    EXPECT_GE(acknowledged, 2 * 12 - 1);
}

}  // namespace
}  // namespace sage::vdb::testing
