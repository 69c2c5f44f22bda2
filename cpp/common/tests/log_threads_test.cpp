// Group commit: many threads append, one fsync serves all that wait.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>

#include "sage/common/log.hpp"
#include "sage/common/testing/fault_file_system.hpp"
#include "storage_support.hpp"

namespace sage::storage {
namespace {

constexpr LogIdentity identity{test_application, 5};
constexpr int thread_count = 8;

struct Written {
    std::mutex mutex;
    std::map<std::uint64_t, std::string> acknowledged;
    std::set<std::string> refused;
};

// Every thread commits texts of its own until the log refuses.
void write_in_threads(Log& log, int records_each, Written& written) {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < thread_count; ++thread) {
        threads.emplace_back([&, thread] {
            for (int i = 0; i < records_each; ++i) {
                const std::string text = std::to_string(thread) + ":" + std::to_string(i);
                try {
                    const std::uint64_t sequence = log.commit(as_bytes(text));
                    EXPECT_GE(log.durable_sequence(), sequence);
                    const std::lock_guard<std::mutex> guard(written.mutex);
                    EXPECT_TRUE(written.acknowledged.emplace(sequence, text).second);
                } catch (const IoError&) {
                    const std::lock_guard<std::mutex> guard(written.mutex);
                    written.refused.insert(text);
                    return;
                }
            }
        });
    }
}

std::map<std::uint64_t, std::string> read(FileSystem& files, const std::string& directory) {
    std::map<std::uint64_t, std::string> records;
    LogReader(files, directory, identity, 1).replay([&](std::uint64_t sequence, Bytes payload) {
        records.emplace(sequence, as_text(payload));
    });
    return records;
}

class LogThreads : public ::testing::TestWithParam<std::tuple<SyncPolicy, int>> {};

INSTANTIATE_TEST_SUITE_P(Policies, LogThreads,
                         ::testing::Values(std::tuple{SyncPolicy::each, 0}, std::tuple{SyncPolicy::group, 0},
                                           std::tuple{SyncPolicy::group, 500}));

TEST_P(LogThreads, KeepAllAcknowledgedRecordsInOrder) {
    const TemporaryDirectory temporary;
    LogOptions options;
    std::tie(options.policy, std::ignore) = GetParam();
    options.group_delay_max = std::chrono::microseconds(std::get<1>(GetParam()));
    options.segment_bytes_max = 4000;  // segments end while others sync
    constexpr int records_each = 100;
    Written written;
    {
        const auto log = Log::create(system_files(), temporary.path(), identity, options);
        write_in_threads(*log, records_each, written);
        EXPECT_EQ(log->last_sequence(), std::uint64_t{thread_count * records_each});
        EXPECT_GT(log->segment_count(), 3U);
        if (options.policy == SyncPolicy::each) {
            EXPECT_EQ(log->sync_count(), std::uint64_t{thread_count * records_each});
        } else {
            EXPECT_LT(log->sync_count(), std::uint64_t{thread_count * records_each * 3 / 4});
        }
    }
    EXPECT_TRUE(written.refused.empty());
    EXPECT_EQ(read(system_files(), temporary.path()), written.acknowledged);
}

TEST(LogThreadsAndFaults, ASyncCoversWhatWasThereWhenItBegan) {
    testing::FaultFileSystem files;
    files.create_directories("log");
    const auto log = Log::create(files, "log", identity, {});
    log->append(as_bytes("before"));
    bool appended = false;
    files.set_sync_hook([&] {
        if (!appended) {
            appended = true;
            std::jthread([&] { EXPECT_EQ(log->append(as_bytes("meanwhile")), 2U); }).join();
        }
    });
    log->sync(1);
    ASSERT_TRUE(appended);
    EXPECT_EQ(log->durable_sequence(), 1U);
    log->sync(2);
    EXPECT_EQ(log->sync_count(), 2U);
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        EXPECT_EQ(read(*files.after_crash(seed), "log").size(), 2U);
    }
}

TEST(LogThreadsAndFaults, AFailedSyncIsToldToEverybodyThatWaits) {
    for (std::uint64_t failing = 0; failing < 12; ++failing) {
        testing::FaultFileSystem files;
        files.create_directories("log");
        LogOptions options;
        options.segment_bytes_max = 1500;
        Written written;
        const auto log = Log::create(files, "log", identity, options);
        files.fail_sync_at(files.syncs() + failing);
        write_in_threads(*log, 1000, written);
        EXPECT_EQ(written.refused.size(), std::size_t{thread_count});
        for (std::uint64_t seed = 0; seed < 10; ++seed) {
            const auto after = files.after_crash(seed);
            const auto records = read(*after, "log");
            for (const auto& [sequence, text] : written.acknowledged) {
                const auto found = records.find(sequence);
                ASSERT_TRUE(found != records.end() && found->second == text) << sequence;
            }
        }
    }
}

TEST(LogThreadsAndFaults, ACrashKeepsWhatWasAcknowledged) {
    for (std::uint64_t crash = 0; crash < 200; crash += 7) {
        testing::FaultFileSystem files;
        files.create_directories("log");
        LogOptions options;
        options.segment_bytes_max = 1500;
        const auto log = Log::create(files, "log", identity, options);
        files.crash_at(files.operations() + crash);
        std::mutex mutex;
        std::map<std::uint64_t, std::string> acknowledged;
        {
            std::vector<std::jthread> threads;
            for (int thread = 0; thread < thread_count; ++thread) {
                threads.emplace_back([&, thread] {
                    try {
                        for (int i = 0; i < 1000; ++i) {
                            const std::string text = std::to_string(thread) + ":" + std::to_string(i);
                            const std::uint64_t sequence = log->commit(as_bytes(text));
                            const std::lock_guard<std::mutex> guard(mutex);
                            acknowledged.emplace(sequence, text);
                        }
                        ADD_FAILURE() << "no crash";
                    } catch (const testing::SimulatedCrash&) {  // the thread that was in it, and those after it
                    } catch (const IoError&) {                  // those that waited for it
                    }
                });
            }
        }
        for (std::uint64_t seed = 0; seed < 20; ++seed) {
            const auto after = files.after_crash(seed);
            const auto records = read(*after, "log");
            ASSERT_GE(records.size(), acknowledged.size());
            for (const auto& [sequence, text] : acknowledged) {
                ASSERT_EQ(records.at(sequence), text);
            }
        }
    }
}

TEST(LogThreadsAndFaults, ReadersMayReadWhileOneWrites) {
    const TemporaryDirectory temporary;
    LogOptions options;
    options.policy = SyncPolicy::none;
    options.segment_bytes_max = 20000;
    const auto log = Log::create(system_files(), temporary.path(), identity, options);
    std::atomic<bool> stop = false;
    std::jthread writer([&] {
        for (std::uint64_t i = 1; !stop; ++i) {
            const std::uint64_t sequence = log->append(as_bytes(std::to_string(i) + std::string(i % 300, 'x')));
            if (sequence % 50 == 0) {
                log->sync();
            }
        }
    });
    std::uint64_t seen = 0;
    // The log grows all the time, so the turns are bounded by time. The writer may be late; the test's limit ends it.
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    for (int turn = 0; (turn < 60 && std::chrono::steady_clock::now() < end) || seen < 200; ++turn) {
        std::uint64_t count = 0;
        LogReader(system_files(), temporary.path(), identity, 1).replay([&](std::uint64_t sequence, Bytes payload) {
            ASSERT_EQ(sequence, ++count);
            ASSERT_EQ(as_text(payload), std::to_string(sequence) + std::string(sequence % 300, 'x'));
        });
        ASSERT_GE(count, seen);
        seen = count;
    }
    stop = true;
}

}  // namespace
}  // namespace sage::storage
