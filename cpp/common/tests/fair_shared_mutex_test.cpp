#include "sage/common/fair_shared_mutex.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <vector>

namespace sage {
namespace {

TEST(FairSharedMutex, LetsReadersInTogether) {
    FairSharedMutex mutex;
    constexpr int readers = 3;
    // Passed only when all readers hold the lock at the same time; a mutex that let in one would hang here, and the
    // test's time limit end it.
    std::barrier inside(readers);
    std::vector<std::jthread> threads;
    std::atomic<int> passed = 0;
    for (int i = 0; i < readers; ++i) {
        threads.emplace_back([&] {
            const std::shared_lock lock(mutex);
            inside.arrive_and_wait();
            ++passed;
        });
    }
    threads.clear();
    EXPECT_EQ(passed, readers);
}

TEST(FairSharedMutex, KeepsWritersAlone) {
    FairSharedMutex mutex;
    int plain = 0;  // not atomic on purpose: ThreadSanitizer watches it
    std::vector<std::jthread> threads;
    std::atomic<int> turns = 0;
    // By time, because each turn may cost a change of threads on a busy core.
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            for (int turn = 0; turn < 2000 && std::chrono::steady_clock::now() < end; ++turn) {
                const std::unique_lock lock(mutex);
                ++plain;
                ++turns;
            }
        });
    }
    threads.clear();
    EXPECT_EQ(plain, turns);
    EXPECT_GE(plain, 4);
}

// Readers that overlap all the time: with a mutex that prefers readers, the writer would wait for the deadline.
TEST(FairSharedMutex, DoesNotStarveAWriter) {
    using clock = std::chrono::steady_clock;
    FairSharedMutex mutex;
    std::atomic<bool> stop = false;
    std::vector<std::jthread> readers;
    for (int i = 0; i < 4; ++i) {
        readers.emplace_back([&] {
            while (!stop) {
                const std::shared_lock lock(mutex);
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            }
        });
    }
    const auto begin = clock::now();
    for (int turn = 0; turn < 20; ++turn) {
        const std::unique_lock lock(mutex);
    }
    const auto waited = clock::now() - begin;
    stop = true;
    readers.clear();
    EXPECT_LT(waited, std::chrono::seconds(20));
}

}  // namespace
}  // namespace sage
