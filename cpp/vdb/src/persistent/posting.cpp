#include "persistent/posting.hpp"

#include <algorithm>
#include <bit>

namespace sage::vdb::persistent {
namespace {

constexpr std::size_t array_max = 4096;
// A bitmap turns back into an array well below, so that one slot that comes and goes does not convert each time.
constexpr std::size_t array_again = 3072;
constexpr std::size_t bitmap_words = 1024;

bool chunk_contains(const Posting::Chunk& chunk, std::uint16_t place) noexcept {
    if (!chunk.bitmap.empty()) {
        return ((chunk.bitmap[place / 64U] >> (place % 64U)) & 1U) != 0;
    }
    return std::binary_search(chunk.places.begin(), chunk.places.end(), place);
}

void chunk_insert(Posting::Chunk& chunk, std::uint16_t place) {
    ++chunk.count;
    if (chunk.bitmap.empty() && chunk.places.size() == array_max) {
        chunk.bitmap.assign(bitmap_words, 0);
        for (const std::uint16_t old : chunk.places) {
            chunk.bitmap[old / 64U] |= std::uint64_t{1} << (old % 64U);
        }
        // Not "= {}", which keeps the memory.
        chunk.places = std::vector<std::uint16_t>();
    }
    if (!chunk.bitmap.empty()) {
        chunk.bitmap[place / 64U] |= std::uint64_t{1} << (place % 64U);
    } else {
        chunk.places.insert(std::lower_bound(chunk.places.begin(), chunk.places.end(), place), place);
    }
}

void chunk_erase(Posting::Chunk& chunk, std::uint16_t place) {
    --chunk.count;
    if (chunk.bitmap.empty()) {
        chunk.places.erase(std::lower_bound(chunk.places.begin(), chunk.places.end(), place));
        return;
    }
    chunk.bitmap[place / 64U] &= ~(std::uint64_t{1} << (place % 64U));
    if (chunk.count > array_again) {
        return;
    }
    for (std::size_t word = 0; word < bitmap_words; ++word) {
        for (std::uint64_t left = chunk.bitmap[word]; left != 0; left &= left - 1) {
            chunk.places.push_back(static_cast<std::uint16_t>(word * 64 + static_cast<std::size_t>(std::countr_zero(left))));
        }
    }
    chunk.bitmap = std::vector<std::uint64_t>();
}

std::uint16_t high(Slot slot) noexcept { return static_cast<std::uint16_t>(slot >> 16U); }
std::uint16_t low(Slot slot) noexcept { return static_cast<std::uint16_t>(slot & 0xFFFFU); }

// The chunk of `slot`, changeable, made if there is none.
Posting::Chunk& chunk_for(Posting::Chunks& all, Slot slot, Owner owner) {
    const auto found = std::lower_bound(all.keys.begin(), all.keys.end(), high(slot));
    const auto place = found - all.keys.begin();
    if (found == all.keys.end() || *found != high(slot)) {
        all.keys.insert(found, high(slot));
        all.chunks.insert(all.chunks.begin() + place, make_node<Posting::Chunk>(owner));
    }
    return own(all.chunks[static_cast<std::size_t>(place)], owner);
}

// As own(), for a node of which the kind is known.
template <class Kind>
Kind& own_as(Ref<Node>& link, Owner owner) {
    if (link->owner != owner) {
        Ref<Kind> copy = make_node<Kind>(static_cast<const Kind&>(*link));
        copy->owner = owner;
        link = copy;
    }
    return static_cast<Kind&>(*link);
}

template <class Visit>
void for_each_in(const Posting::Chunk& chunk, Slot base, const Visit& visit) {
    for (const std::uint16_t item : chunk.places) {
        visit(base | item);
    }
    for (std::size_t word = 0; word < chunk.bitmap.size(); ++word) {
        for (std::uint64_t left = chunk.bitmap[word]; left != 0; left &= left - 1) {
            visit(base | static_cast<Slot>(word * 64 + static_cast<std::size_t>(std::countr_zero(left))));
        }
    }
}

}  // namespace

Posting::Posting(const Posting& other) noexcept : count_(other.count_), first_(other.first_) {
    if (small()) {
        rest_ = other.rest_;
    } else {
        std::construct_at(&node_, other.node_);
    }
}

Posting::Posting(Posting&& other) noexcept : count_(other.count_), first_(other.first_) {
    if (small()) {
        rest_ = other.rest_;
    } else {
        std::construct_at(&node_, std::move(other.node_));
        std::destroy_at(&other.node_);
        std::construct_at(&other.rest_);
        other.count_ = 0;
    }
}

Posting& Posting::operator=(Posting other) noexcept {
    release();
    std::construct_at(this, std::move(other));
    return *this;
}

Posting::~Posting() { release(); }

void Posting::release() noexcept {
    if (!small()) {
        std::destroy_at(&node_);
    }
}

bool Posting::contains(Slot slot) const noexcept {
    if (small()) {
        return (count_ > 0 && first_ == slot) || (count_ > 1 && rest_[0] == slot) || (count_ > 2 && rest_[1] == slot);
    }
    if (is_few()) {
        return std::binary_search(begin_of_few(), end_of_few(), slot);
    }
    const Chunks& all = chunks();
    const auto found = std::lower_bound(all.keys.begin(), all.keys.end(), high(slot));
    return found != all.keys.end() && *found == high(slot) &&
           chunk_contains(*all.chunks[static_cast<std::size_t>(found - all.keys.begin())], low(slot));
}

bool Posting::insert(Slot slot, Owner owner) {
    if (contains(slot)) {
        return false;
    }
    if (count_ < inline_max) {
        (count_ == 0 ? first_ : rest_[count_ - 1]) = slot;
    } else if (count_ == inline_max) {
        Ref<Few> few = make_node<Few>(owner);
        std::copy_n(std::array<Slot, 4>{first_, rest_[0], rest_[1], slot}.begin(), 4, few->slots.begin());
        std::sort(few->slots.begin(), few->slots.begin() + 4);
        std::construct_at(&node_, std::move(few));
    } else {
        insert_in_node(slot, owner);
    }
    ++count_;
    return true;
}

void Posting::insert_in_node(Slot slot, Owner owner) {
    if (count_ < few_max) {
        Few& few = own_as<Few>(node_, owner);
        const auto end = few.slots.begin() + count_;
        const auto place = std::lower_bound(few.slots.begin(), end, slot);
        std::copy_backward(place, end, end + 1);
        *place = slot;
        return;
    }
    if (count_ == few_max) {
        Ref<Chunks> all = make_node<Chunks>(owner);
        std::for_each(begin_of_few(), end_of_few(),
                      [&all, owner](Slot old) { chunk_insert(chunk_for(*all, old, owner), low(old)); });
        node_ = std::move(all);
    }
    chunk_insert(chunk_for(own_as<Chunks>(node_, owner), slot, owner), low(slot));
}

bool Posting::erase(Slot slot, Owner owner) {
    if (!contains(slot)) {
        return false;
    }
    if (small()) {
        std::array<std::uint32_t, inline_max> slots{first_, rest_[0], rest_[1]};
        *std::find(slots.begin(), slots.end(), slot) = slots[count_ - 1];
        first_ = slots[0];
        rest_ = {slots[1], slots[2]};
    } else if (is_few()) {
        erase_from_few(slot, owner);
    } else {
        erase_from_chunks(slot, owner);
    }
    --count_;
    return true;
}

void Posting::erase_from_few(Slot slot, Owner owner) {
    if (count_ > inline_max + 1) {
        Few& few = own_as<Few>(node_, owner);
        const auto end = few.slots.begin() + count_;
        const auto place = std::lower_bound(few.slots.begin(), end, slot);
        std::copy(place + 1, end, place);
        return;
    }
    std::array<Slot, inline_max> left{};
    std::remove_copy(begin_of_few(), end_of_few(), left.begin(), slot);
    std::destroy_at(&node_);
    first_ = left[0];
    std::construct_at(&rest_, std::array<std::uint32_t, 2>{left[1], left[2]});
}

void Posting::erase_from_chunks(Slot slot, Owner owner) {
    if (count_ == few_max + 1) {
        Ref<Few> few = make_node<Few>(owner);
        std::size_t kept = 0;
        for (std::size_t place = 0; place < chunks().keys.size(); ++place) {
            for_each_in(*chunks().chunks[place], Slot{chunks().keys[place]} << 16U, [&](Slot old) {
                if (old != slot) {
                    few->slots[kept++] = old;
                }
            });
        }
        node_ = std::move(few);
        return;
    }
    Chunks& all = own_as<Chunks>(node_, owner);
    Chunk& chunk = chunk_for(all, slot, owner);
    chunk_erase(chunk, low(slot));
    if (chunk.count == 0) {
        const auto place = std::lower_bound(all.keys.begin(), all.keys.end(), high(slot)) - all.keys.begin();
        all.keys.erase(all.keys.begin() + place);
        all.chunks.erase(all.chunks.begin() + place);
    }
}

void Posting::add_to(SlotSet& into) const {
    const std::span<std::uint64_t> words = into.words();
    const auto add = [&words](Slot slot) { words[slot / 64] |= std::uint64_t{1} << (slot % 64); };
    if (small()) {
        const std::array<std::uint32_t, inline_max> slots{first_, rest_[0], rest_[1]};
        std::for_each(slots.begin(), slots.begin() + count_, add);
        return;
    }
    if (is_few()) {
        std::for_each(begin_of_few(), end_of_few(), add);
        return;
    }
    const Chunks& all = chunks();
    for (std::size_t place = 0; place < all.keys.size(); ++place) {
        const Slot base = Slot{all.keys[place]} << 16U;
        const Chunk& chunk = *all.chunks[place];
        const std::size_t first_word = base / 64;
        // The room may end within the chunk; no slot lies beyond it.
        const std::size_t count = std::min(chunk.bitmap.size(), words.size() - std::min(words.size(), first_word));
        for (std::size_t word = 0; word < count; ++word) {
            words[first_word + word] |= chunk.bitmap[word];
        }
        for (const std::uint16_t item : chunk.places) {
            add(base | item);
        }
    }
}

std::size_t Posting::end() const noexcept {
    if (small()) {
        const std::array<std::uint32_t, inline_max> slots{first_, rest_[0], rest_[1]};
        return count_ == 0 ? 0 : std::size_t{*std::max_element(slots.begin(), slots.begin() + count_)} + 1;
    }
    if (is_few()) {
        return std::size_t{*(end_of_few() - 1)} + 1;
    }
    const std::size_t base = std::size_t{chunks().keys.back()} << 16U;
    const Chunk& chunk = *chunks().chunks.back();
    if (chunk.bitmap.empty()) {
        return base + chunk.places.back() + 1;
    }
    std::size_t word = bitmap_words - 1;
    while (chunk.bitmap[word] == 0) {
        --word;
    }
    return base + word * 64 + static_cast<std::size_t>(std::bit_width(chunk.bitmap[word]));
}

std::size_t Posting::bytes() const noexcept {
    if (small()) {
        return 0;
    }
    if (is_few()) {
        return sizeof(Few);
    }
    const Chunks& all = chunks();
    std::size_t total = sizeof(Chunks) + all.keys.capacity() * 2 + all.chunks.capacity() * sizeof(void*);
    for (const Ref<Chunk>& chunk : all.chunks) {
        total += sizeof(Chunk) + chunk->places.capacity() * 2 + chunk->bitmap.capacity() * 8;
    }
    return total;
}

}  // namespace sage::vdb::persistent
