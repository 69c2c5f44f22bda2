#include "sage/common/epoch.hpp"

#include <functional>
#include <memory>
#include <thread>

namespace sage {

Epochs::~Epochs() {
    Block* block = first_.next.load(std::memory_order_acquire);
    while (block != nullptr) {
        const std::unique_ptr<Block> owned(block);
        block = owned->next.load(std::memory_order_acquire);
    }
}

Epochs::Guard Epochs::enter() const {
    // Threads begin at different seats, so that they do not fight for one cache line.
    thread_local const std::size_t start =
        (std::hash<std::thread::id>{}(std::this_thread::get_id()) * 0x9E3779B97F4A7C15ULL) >> 40U;
    for (Block* block = &first_;;) {
        for (std::size_t i = 0; i < seats_per_block; ++i) {
            Seat& seat = block->seats[(start + i) % seats_per_block];
            std::uint64_t free = 0;
            // An older moment than the present one is harmless, it only makes the writer wait longer.
            if (seat.since.load(std::memory_order_relaxed) == 0 &&
                seat.since.compare_exchange_strong(free, now_.load(std::memory_order_acquire),
                                                   std::memory_order_acq_rel)) {
                // Either this comes after a ticket was given, then we see what was unlinked before it; or before, then
                // the writer sees our seat. A plain load would leave room for neither.
                now_.fetch_add(0, std::memory_order_acq_rel);
                return Guard(seat);
            }
        }
        Block* next = block->next.load(std::memory_order_acquire);
        if (next == nullptr) {
            auto made = std::make_unique<Block>();
            if (block->next.compare_exchange_strong(next, made.get(), std::memory_order_acq_rel)) {
                next = made.release();
            }
        }
        block = next;
    }
}

Epochs::Ticket Epochs::ticket() { return now_.fetch_add(1, std::memory_order_acq_rel); }

bool Epochs::passed(Ticket ticket) const {
    for (const Block* block = &first_; block != nullptr; block = block->next.load(std::memory_order_acquire)) {
        for (const Seat& seat : block->seats) {
            const std::uint64_t since = seat.since.load(std::memory_order_acquire);
            if (since != 0 && since <= ticket) {
                return false;
            }
        }
    }
    return true;
}

}  // namespace sage
