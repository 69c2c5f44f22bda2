#include "sage/vdb/database.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "collection_support.hpp"
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
