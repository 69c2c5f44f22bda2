// A set of slots as a bitmap.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "sage/common/aligned.hpp"

namespace sage::vdb {

// The dense row number that a collection gives out; ids, vectors, metadata and texts are found by it.
using Slot = std::uint32_t;

// No slot lies above this: a bitmap over all of them takes 256 MiB.
inline constexpr Slot slot_max = 0x7FFF'FFFE;

// Slots in words of 64 bits, cache-line aligned, bit i % 64 of word i / 64 for slot i. Grows as slots are inserted; slots
// beyond the words are not in the set. words() is what the indexes take as `allowed`.
//
// Threads: as a std::vector.
class SlotSet {
public:
    SlotSet() = default;
    // Room for the slots 0 .. slot_count - 1; empty.
    explicit SlotSet(std::size_t slot_count) : words_((slot_count + 63) / 64, 0) {}

    void insert(Slot slot) {
        grow(std::size_t{slot} + 1);
        words_[slot / 64] |= std::uint64_t{1} << (slot % 64);
    }
    // The slots first .. last, both included.
    void insert_range(Slot first, Slot last);
    void erase(Slot slot) noexcept {
        if (slot / 64 < words_.size()) {
            words_[slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
        }
    }
    [[nodiscard]] bool contains(Slot slot) const noexcept {
        return slot / 64 < words_.size() && ((words_[slot / 64] >> (slot % 64)) & 1) != 0;
    }
    void clear() noexcept { words_.clear(); }
    // Makes room for `slot_count` slots; never shrinks.
    void grow(std::size_t slot_count) {
        if (words_.size() * 64 < slot_count) {
            words_.resize((slot_count + 63) / 64, 0);
        }
    }

    [[nodiscard]] std::size_t count() const noexcept;
    [[nodiscard]] bool empty() const noexcept;

    SlotSet& operator|=(const SlotSet& other);
    SlotSet& operator&=(const SlotSet& other) noexcept;
    // Takes out what is in `other`.
    SlotSet& and_not(const SlotSet& other) noexcept;

    // The same slots, whatever the room.
    [[nodiscard]] bool operator==(const SlotSet& other) const noexcept;

    // Calls visit(slot) in ascending order.
    template <class Visit>
    void for_each(Visit&& visit) const {
        for (std::size_t place = 0; place < words_.size(); ++place) {
            for (std::uint64_t word = words_[place]; word != 0; word &= word - 1) {
                visit(static_cast<Slot>(place * 64 + static_cast<std::size_t>(std::countr_zero(word))));
            }
        }
    }

    [[nodiscard]] std::span<const std::uint64_t> words() const noexcept { return words_; }
    [[nodiscard]] std::span<std::uint64_t> words() noexcept { return words_; }
    // How many slots there is room for: a multiple of 64.
    [[nodiscard]] std::size_t capacity() const noexcept { return words_.size() * 64; }

private:
    AlignedVector<std::uint64_t> words_;
};

}  // namespace sage::vdb
