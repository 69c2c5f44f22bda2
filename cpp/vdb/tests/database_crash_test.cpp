// Random operations on a database, a crash at every operation on its files, and a look at what is left.
#include <gtest/gtest.h>

#include "collection_model.hpp"
#include "sage/common/testing/fault_file_system.hpp"

namespace sage::vdb::testing {
namespace {

using storage::testing::FaultFileSystem;
using storage::testing::SimulatedCrash;

constexpr std::size_t dimension = 2;
constexpr std::int64_t id_end = 12;

// What the database was like after each of its writes, by other code than the database's.
struct History {
    struct Moment {
        std::map<std::string, PlainCollection> collections;
    };
    std::vector<Moment> moments{Moment{}};
    std::size_t acknowledged = 0;
};

DatabaseOptions options_on(FaultFileSystem& files, storage::SyncPolicy sync) {
    DatabaseOptions options = quiet();
    options.files = &files;
    options.sync = sync;
    return options;
}

// Enters what it is about to do first: a crash in the middle may have written it.
template <class Work>
void step(History& history, bool durable, History::Moment next, Work work) {
    history.moments.push_back(std::move(next));
    work();
    if (durable) {
        history.acknowledged = history.moments.size() - 1;
    }
}

void work(FaultFileSystem& files, storage::SyncPolicy sync, std::mt19937& random, int steps, History& history) {
    const bool durable = sync != storage::SyncPolicy::none;
    const auto options = options_on(files, sync);
    auto database = std::make_unique<Database>(Database::open("db", options));
    history.acknowledged = history.moments.size() - 1;
    for (int i = 0; i < steps; ++i) {
        History::Moment next = history.moments.back();
        const std::string name(1, static_cast<char>('a' + random() % 2));
        const auto what = random() % 16;
        if (!next.collections.contains(name)) {
            next.collections[name];
            step(history, durable, next, [&] {
                static_cast<void>(database->create_collection(name, options_of(dimension, Metric::l2)));
            });
        } else if (what < 11) {
            Collection collection = database->collection(name);
            const RandomChange change(random, next.collections[name], id_end, dimension);
            change.apply(next.collections[name]);
            step(history, durable, next, [&] { change.apply(collection); });
        } else if (what == 11) {
            next.collections.erase(name);
            step(history, durable, next, [&] { database->drop_collection(name); });
        } else if (what == 12) {
            const std::string other = name + name;
            if (!next.collections.contains(other)) {
                next.collections[other] = next.collections[name];
                next.collections.erase(name);
                step(history, durable, next, [&] { database->rename_collection(name, other); });
            }
        } else if (what == 13) {
            database->checkpoint();
            history.acknowledged = history.moments.size() - 1;
        } else if (what == 14) {
            database->sync();
            history.acknowledged = history.moments.size() - 1;
        } else {
            database->close();
            history.acknowledged = history.moments.size() - 1;
            database = std::make_unique<Database>(Database::open("db", options));
        }
    }
    database->close();
    history.acknowledged = history.moments.size() - 1;
}

bool matches(const Database& database, const History::Moment& moment) {
    if (database.collection_names().size() != moment.collections.size()) {
        return false;
    }
    return std::all_of(moment.collections.begin(), moment.collections.end(), [&database](const auto& entry) {
        return database.has_collection(entry.first) && same_contents(database.collection(entry.first), entry.second);
    });
}

void expect_consistent(FaultFileSystem& files, const History& history, const std::string& where) {
    Database database = Database::open("db", options_on(files, storage::SyncPolicy::group));
    for (std::size_t i = history.acknowledged; i < history.moments.size(); ++i) {
        if (matches(database, history.moments[i])) {
            database.close();
            static_cast<void>(Database::verify("db", &files));
            return;
        }
    }
    FAIL() << where << ": the database is like at no moment from the last acknowledged one on";
}

class DatabaseCrash : public ::testing::TestWithParam<storage::SyncPolicy> {};
INSTANTIATE_TEST_SUITE_P(Policies, DatabaseCrash,
                         ::testing::Values(storage::SyncPolicy::each, storage::SyncPolicy::group,
                                           storage::SyncPolicy::none));

TEST_P(DatabaseCrash, AtEveryOperationKeepsWhatWasAcknowledged) {
    for (unsigned script = 0; script < 2; ++script) {
        bool crashed = true;
        std::uint64_t crash = 0;
        for (; crashed; ++crash) {
            FaultFileSystem files;
            files.crash_at(crash);
            History history;
            std::mt19937 random(script);
            crashed = false;
            try {
                work(files, GetParam(), random, 40, history);
            } catch (const SimulatedCrash&) {
                crashed = true;
            }
            for (std::uint64_t seed = 0; seed < 3; ++seed) {
                const auto disk = files.after_crash(seed);
                expect_consistent(*disk, history, "script " + std::to_string(script) + ", crash " + std::to_string(crash) +
                                                      ", disk " + std::to_string(seed));
                ASSERT_FALSE(HasFatalFailure());
            }
            const auto disk = files.after_kill();
            expect_consistent(*disk, history, "script " + std::to_string(script) + ", killed at " + std::to_string(crash));
            ASSERT_FALSE(HasFatalFailure());
        }
        EXPECT_GT(crash, 60U);
    }
}

TEST_P(DatabaseCrash, AFullDiskChangesNothing) {
    FaultFileSystem files;
    std::mt19937 random(4);
    PlainCollection plain;
    int refused = 0;
    {
        Database database = Database::open("db", options_on(files, GetParam()));
        Collection collection = database.create_collection("docs", options_of(dimension, Metric::l2));
        for (int i = 0; i < 400; ++i) {
            files.set_capacity(random() % 3 == 0 ? 500 + random() % 9000 : 10'000'000);
            const RandomChange change(random, plain, id_end, dimension);
            try {
                change.apply(collection);
                change.apply(plain);
            } catch (const IoError& error) {
                ASSERT_EQ(error.code(), ENOSPC) << error.what();
                ++refused;
            }
            if (i % 4 == 0) {
                try {
                    database.checkpoint();
                } catch (const IoError& error) {
                    ASSERT_EQ(error.code(), ENOSPC) << error.what();
                    ++refused;
                }
                ASSERT_TRUE(same_contents(collection, plain)) << i;
            }
        }
        files.set_capacity(10'000'000);
    }
    EXPECT_GT(refused, 10);
    const auto disk = files.after_crash(1);
    const Database database = Database::open("db", options_on(*disk, GetParam()));
    EXPECT_TRUE(same_contents(database.collection("docs"), plain));
}

TEST(DatabaseFaults, AFailedSyncIsToldAndReadingGoesOn) {
    FaultFileSystem files;
    Database database = Database::open("db", options_on(files, storage::SyncPolicy::group));
    Collection collection = database.create_collection("docs", options_of(1, Metric::l2));
    add_rows(collection, {1}, {1});
    files.fail_sync_at(files.syncs());
    expect_failure<IoError>([&] { add_rows(collection, {2}, {2}); }, "sync");
    expect_failure<IoError>([&] { add_rows(collection, {3}, {3}); }, "cannot be used any more");
    const std::vector<float> query{0};
    EXPECT_EQ(numbers_of(collection.search({.queries = query})), (Numbers{1, 2}));
}

TEST(DatabaseFaults, AReadOnlyDiskIsTold) {
    FaultFileSystem files;
    {
        Database database = Database::open("db", options_on(files, storage::SyncPolicy::group));
        add_rows(database.create_collection("docs", options_of(1, Metric::l2)), {1}, {1});
    }
    files.set_read_only(true);
    DatabaseOptions options = options_on(files, storage::SyncPolicy::group);
    options.read_only = true;
    Database database = Database::open("db", options);
    Collection collection = database.collection("docs");
    EXPECT_EQ(collection.count(), 1U);
    expect_failure<InvalidArgument>([&] { add_rows(collection, {2}, {2}); }, "was opened read only");
    expect_failure<NotFound>([&] { static_cast<void>(Database::open("other", options)); }, "no store");
}

TEST(DatabaseFaults, DamageIsFound) {
    FaultFileSystem files;
    {
        Database database = Database::open("db", options_on(files, storage::SyncPolicy::group));
        std::mt19937 random(1);
        Collection collection = database.create_collection("docs", options_of(dimension, Metric::cosine));
        collection.add(random_batch(random, 20, 100, dimension).view());
    }
    std::string snapshot;
    for (const std::string& name : files.list("db")) {
        snapshot = name.ends_with(".sagesnap") ? "db/" + name : snapshot;
    }
    const std::vector<std::byte> content = files.content(snapshot);
    ASSERT_GT(content.size(), 200U);
    std::size_t accepted = 0;
    for (std::size_t at = 0; at < content.size(); ++at) {
        std::vector<std::byte> damaged = content;
        damaged[at] ^= std::byte{0x10};
        const auto copy = files.after_kill();
        copy->set_content(snapshot, damaged);
        try {
            static_cast<void>(Database::verify("db", copy.get()));
            ++accepted;
        } catch (const Corruption&) {
        } catch (const UnsupportedFormat&) {
        }
    }
    EXPECT_EQ(accepted, 0U);
}

}  // namespace
}  // namespace sage::vdb::testing
