// When memory that readers may still look at can be used again.
//
// A reader holds a Guard for as long as it uses what it has found; entering and leaving never blocks and takes no lock.
// The writer makes something unreachable, asks for a ticket(), and may reuse the memory once passed(ticket) is true:
// then every reader that entered before the ticket has left. Readers that enter later cannot find it.
//
// Threads: any number of readers; ticket() and passed() are for one writer at a time.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "sage/common/aligned.hpp"

namespace sage {

class Epochs {
    struct alignas(cache_line_bytes) Seat {
        std::atomic<std::uint64_t> since{0};  // 0: free
    };
    static constexpr std::size_t seats_per_block = 32;
    struct Block {
        std::array<Seat, seats_per_block> seats;
        std::atomic<Block*> next{nullptr};
    };

public:
    using Ticket = std::uint64_t;

    // A reader's presence. Ends with its life.
    class Guard {
    public:
        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;
        ~Guard() { seat_.since.store(0, std::memory_order_release); }

    private:
        friend class Epochs;
        explicit Guard(Seat& seat) : seat_(seat) {}
        Seat& seat_;
    };

    Epochs() = default;
    Epochs(const Epochs&) = delete;
    Epochs& operator=(const Epochs&) = delete;
    ~Epochs();

    // Throws std::bad_alloc only when more readers than ever before are inside and there is no memory for a seat.
    [[nodiscard]] Guard enter() const;

    // What was made unreachable before this call is free once passed() says so of the ticket.
    [[nodiscard]] Ticket ticket();
    [[nodiscard]] bool passed(Ticket ticket) const;

private:
    mutable std::atomic<std::uint64_t> now_{1};
    mutable Block first_;
};

}  // namespace sage
