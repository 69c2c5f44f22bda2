#include "sage/vdb/slot_set.hpp"

#include <algorithm>

namespace sage::vdb {
namespace {

// By arithmetic alone: without -mpopcnt std::popcount is a call, and this loop becomes vector code.
std::uint64_t ones(std::uint64_t word) noexcept {
    word -= (word >> 1) & 0x5555555555555555U;
    word = (word & 0x3333333333333333U) + ((word >> 2) & 0x3333333333333333U);
    word = (word + (word >> 4)) & 0x0F0F0F0F0F0F0F0FU;
    // Sums the bytes without a multiplication, which SSE2 has not for 64 bits.
    word += word >> 8;
    word += word >> 16;
    word += word >> 32;
    return word & 0x7FU;
}

}  // namespace

void SlotSet::insert_range(Slot first, Slot last) {
    if (first > last) {
        return;
    }
    grow(std::size_t{last} + 1);
    const std::size_t begin = first / 64;
    const std::size_t end = last / 64;
    const std::uint64_t head = ~std::uint64_t{0} << (first % 64);
    const std::uint64_t tail = ~std::uint64_t{0} >> (63 - last % 64);
    if (begin == end) {
        words_[begin] |= head & tail;
        return;
    }
    words_[begin] |= head;
    std::fill(words_.begin() + static_cast<std::ptrdiff_t>(begin) + 1, words_.begin() + static_cast<std::ptrdiff_t>(end),
              ~std::uint64_t{0});
    words_[end] |= tail;
}

std::size_t SlotSet::count() const noexcept {
    std::uint64_t total = 0;
    for (const std::uint64_t word : words_) {
        total += ones(word);
    }
    return total;
}

bool SlotSet::empty() const noexcept {
    return std::all_of(words_.begin(), words_.end(), [](std::uint64_t word) { return word == 0; });
}

SlotSet& SlotSet::operator|=(const SlotSet& other) {
    grow(other.capacity());
    for (std::size_t place = 0; place < other.words_.size(); ++place) {
        words_[place] |= other.words_[place];
    }
    return *this;
}

SlotSet& SlotSet::operator&=(const SlotSet& other) noexcept {
    const std::size_t shared = std::min(words_.size(), other.words_.size());
    for (std::size_t place = 0; place < shared; ++place) {
        words_[place] &= other.words_[place];
    }
    std::fill(words_.begin() + static_cast<std::ptrdiff_t>(shared), words_.end(), 0);
    return *this;
}

SlotSet& SlotSet::and_not(const SlotSet& other) noexcept {
    const std::size_t shared = std::min(words_.size(), other.words_.size());
    for (std::size_t place = 0; place < shared; ++place) {
        words_[place] &= ~other.words_[place];
    }
    return *this;
}

bool SlotSet::operator==(const SlotSet& other) const noexcept {
    const AlignedVector<std::uint64_t>& longer = words_.size() < other.words_.size() ? other.words_ : words_;
    const AlignedVector<std::uint64_t>& shorter = words_.size() < other.words_.size() ? words_ : other.words_;
    const auto rest = longer.begin() + static_cast<std::ptrdiff_t>(shorter.size());
    return std::equal(shorter.begin(), shorter.end(), longer.begin()) &&
           std::all_of(rest, longer.end(), [](std::uint64_t word) { return word == 0; });
}

}  // namespace sage::vdb
