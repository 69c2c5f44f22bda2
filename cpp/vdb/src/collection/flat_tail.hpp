// Vectors that are looked at one by one. Internal.
#pragma once

#include <atomic>
#include <deque>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "collection/vector_part.hpp"
#include "sage/common/distance.hpp"
#include "sage/common/epoch.hpp"
#include "slot_array.hpp"

namespace sage::vdb::detail {

// Exact. Rows lie densely at places, whatever their slots are: few rows of many slots are scanned in no time. Freed
// places are taken again, the lowest first, once no reader looks at them any more. Under cosine the rows have the length
// 1 or 0, which is the caller's affair.
//
// Threads: one change at a time, reads at any time; a search that begins after a change returned sees it.
class FlatTail {
public:
    FlatTail(std::size_t dimension, Metric metric);

    void insert(std::span<const Slot> slots, std::span<const float> vectors);
    // Returns how many there were. Their slots can be given again at once.
    std::size_t remove(std::span<const Slot> slots);
    // As VectorPart.
    std::size_t search(std::span<const float> query, std::size_t k, const Words* allowed, Slot* slots,
                       float* scores) const;
    bool get(Slot slot, std::span<float> vector) const;
    // The row of a slot, as long as the caller keeps the owner of the slot from reusing it; nullptr for none.
    [[nodiscard]] const float* row(Slot slot) const;
    [[nodiscard]] std::size_t size() const { return size_.load(std::memory_order_acquire); }
    [[nodiscard]] std::size_t memory_bytes() const;
    // Up to `count` slots in order of their places.
    [[nodiscard]] std::vector<Slot> first(std::size_t count) const;

private:
    static constexpr std::uint32_t no_place = ~std::uint32_t{0};
    struct Retired {
        Epochs::Ticket ticket;
        std::uint32_t place;
    };

    void reclaim();
    [[nodiscard]] std::uint32_t take_place();
    [[nodiscard]] std::uint32_t place_of(Slot slot) const;
    void score_block(const float* query, std::uint32_t first, std::uint32_t count, float* scores) const;

    const std::size_t dimension_;
    const Metric metric_;
    const distance::Kernels& kernels_;
    SlotArray<float> rows_;
    SlotArray<std::atomic<Slot>> slots_;           // by place
    SlotArray<std::atomic<std::uint32_t>> places_;  // by slot
    std::atomic<Slot> slot_end_{0};                // of places_
    std::atomic<std::uint32_t> end_{0};            // of places that a search looks at
    std::atomic<std::size_t> size_{0};
    Epochs epochs_;
    // The writer's.
    std::set<std::uint32_t> free_;  // below end_
    std::deque<Retired> retired_;
    std::uint32_t room_ = 0;
};

}  // namespace sage::vdb::detail
