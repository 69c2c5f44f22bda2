#include "sage/common/epoch.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

namespace sage {
namespace {

TEST(Epochs, ATicketPassesWhenNobodyIsInside) {
    Epochs epochs;
    EXPECT_TRUE(epochs.passed(epochs.ticket()));
}

TEST(Epochs, ATicketWaitsForThoseWhoEnteredBeforeIt) {
    Epochs epochs;
    std::optional<Epochs::Ticket> ticket;
    {
        const auto guard = epochs.enter();
        ticket = epochs.ticket();
        EXPECT_FALSE(epochs.passed(*ticket));
        const auto later = epochs.enter();
        EXPECT_FALSE(epochs.passed(*ticket));
    }
    EXPECT_TRUE(epochs.passed(*ticket));
}

TEST(Epochs, ATicketDoesNotWaitForThoseWhoEnteredAfterIt) {
    Epochs epochs;
    const auto ticket = epochs.ticket();
    const auto guard = epochs.enter();
    EXPECT_TRUE(epochs.passed(ticket));
    EXPECT_FALSE(epochs.passed(epochs.ticket()));
}

TEST(Epochs, HasRoomForMoreReadersThanOneBlock) {
    Epochs epochs;
    std::optional<Epochs::Ticket> ticket;
    {
        std::vector<std::unique_ptr<Epochs::Guard>> guards;
        for (int i = 0; i < 200; ++i) {
            guards.emplace_back(new Epochs::Guard(epochs.enter()));
        }
        ticket = epochs.ticket();
        guards.erase(guards.begin(), guards.begin() + 199);
        EXPECT_FALSE(epochs.passed(*ticket));
    }
    EXPECT_TRUE(epochs.passed(*ticket));
}

// A reader never sees a cell that the writer has taken back: ThreadSanitizer sees the race if it could.
TEST(Epochs, ReadersAndAWriterShareCells) {
    // Bounded by time, not only by rounds: on a busy machine each round may wait for a reader that is not running.
    constexpr int rounds_min = 20;
    constexpr int rounds_max = 20000;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    Epochs epochs;
    std::vector<int> cells(64, 1);
    std::atomic<int*> current{cells.data()};
    std::atomic<bool> stop{false};
    std::vector<std::jthread> readers;
    for (int reader = 0; reader < 3; ++reader) {
        readers.emplace_back([&] {
            while (!stop) {
                const auto guard = epochs.enter();
                ASSERT_EQ(*current.load(std::memory_order_acquire), 1);
            }
        });
    }
    std::size_t at = 0;
    for (int round = 0; round < rounds_max && (round < rounds_min || std::chrono::steady_clock::now() < until); ++round) {
        int* old = current.load(std::memory_order_relaxed);
        at = (at + 1) % cells.size();
        cells[at] = 1;
        current.store(&cells[at], std::memory_order_release);
        const auto ticket = epochs.ticket();
        while (!epochs.passed(ticket)) {
            std::this_thread::yield();
        }
        *old = 0;
    }
    stop = true;
}

}  // namespace
}  // namespace sage
