// The nodes of the graph by the centre that they are nearest to, for searches that may find a part of them only.
// Internal.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "sage/common/aligned.hpp"
#include "sage/vdb/slot_set.hpp"
#include "slot_array.hpp"

namespace sage::vdb {

// An inverted file (Sivic and Zisserman, ICCV 2003) over the codes. The entries of a list lie in blocks that never
// move; the place of one that was removed is taken by the next that comes to the list.
//
// Threads: one changes, any number read. What a reader meets has its code, for as long as the reader is there; it may
// not be live: the states tell.
class Partition {
public:
    // One block: four cache lines.
    struct Block {
        static constexpr std::size_t room = 63;
        std::atomic<std::uint32_t> next;
        std::array<std::atomic<Slot>, room> slots;
    };
    static constexpr std::uint32_t no_block = ~std::uint32_t{0};

    // `centres`: codes, row after row of `stride` bytes; their squared lengths in `norms`.
    Partition(AlignedVector<std::uint8_t> centres, std::vector<float> norms, std::size_t stride);

    [[nodiscard]] std::size_t lists() const noexcept { return norms_.size(); }
    [[nodiscard]] const std::vector<const std::uint8_t*>& centre_rows() const noexcept { return rows_; }
    [[nodiscard]] const std::vector<float>& centre_norms() const noexcept { return norms_; }
    [[nodiscard]] std::size_t memory_bytes() const noexcept;

    // Calls visit(block) for the blocks of a list. A place that is not taken holds ~0.
    template <class Visit>
    void each_block(std::size_t list, Visit visit) const {
        for (std::uint32_t at = heads_[list].load(std::memory_order_acquire); at != no_block;) {
            const Block& block = *blocks_.row(at);
            at = block.next.load(std::memory_order_acquire);
            if (at != no_block) {
                __builtin_prefetch(blocks_.row(at));
            }
            visit(block);
        }
    }

    // Of the one that changes. A slot is in one list at most. Readers who were there when it was erased may meet it
    // still.
    void add(std::size_t list, Slot slot);
    void erase(Slot slot);
    // How many there were when the centres were chosen.
    std::size_t made_for = 0;

private:
    AlignedVector<std::uint8_t> centres_;
    std::vector<const std::uint8_t*> rows_;
    std::vector<float> norms_;
    std::vector<std::atomic<std::uint32_t>> heads_;
    SlotArray<Block> blocks_{1};
    std::atomic<std::uint32_t> block_count_{0};
    std::vector<std::vector<std::uint32_t>> free_places_;  // by list
    struct Entry {
        std::uint32_t list;   // no_block: in none
        std::uint32_t place;  // block * Block::room + index
    };
    std::vector<Entry> entries_;  // by slot
};

}  // namespace sage::vdb
