// The versions behind metadata.hpp. Internal.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "persistent/array.hpp"
#include "persistent/posting.hpp"
#include "persistent/ref.hpp"
#include "persistent/text.hpp"
#include "persistent/tree.hpp"
#include "sage/vdb/metadata.hpp"

namespace sage::vdb::detail {

using persistent::Owner;
using persistent::Posting;
using persistent::Ref;
using persistent::TextRef;

// Integers whose order is the order of the floats; -0.0 lies just below 0.0.
inline std::int64_t float_key(double value) noexcept {
    const auto bits = std::bit_cast<std::int64_t>(value);
    return bits ^ ((bits >> 63) & 0x7FFF'FFFF'FFFF'FFFF);
}
inline double float_of_key(std::int64_t key) noexcept {
    return std::bit_cast<double>(key ^ ((key >> 63) & 0x7FFF'FFFF'FFFF'FFFF));
}

// Value of a field -> the slots that have it; the summary counts both.
struct Counts {
    std::int64_t slots = 0;
    std::int64_t entries = 0;
};
template <class KeyType>
struct IndexTraits {
    using Key = KeyType;
    using Value = Posting;
    using Summary = Counts;
    using Delta = Counts;
    // Strings of a batch lie anywhere: the smaller the leaves, the less is copied for each. Numbers often ascend.
    static constexpr std::size_t leaf_capacity = std::is_same_v<KeyType, TextRef> ? 16 : 64;
    static constexpr std::size_t inner_capacity = 32;

    static Counts of(const Posting& posting) { return {posting.count(), 1}; }
    static Counts summarize(const std::vector<Key>& /*keys*/, const std::vector<Posting>& values) {
        Counts sum;
        for (const Posting& posting : values) {
            sum.slots += posting.count();
        }
        sum.entries = static_cast<std::int64_t>(values.size());
        return sum;
    }
    static void merge(Counts& sum, const Counts& part) {
        sum.slots += part.slots;
        sum.entries += part.entries;
    }
    static bool apply(Counts& sum, const Counts& delta) {
        merge(sum, delta);
        return true;
    }
};
using NumberIndex = persistent::Tree<IndexTraits<std::int64_t>>;
using TextIndex = persistent::Tree<IndexTraits<TextRef>>;

struct TextList : persistent::Node {
    std::vector<TextRef> items;
};

// One field. Which members are in use follows from the type.
struct Field : persistent::Node {
    std::string name;
    FieldType type = FieldType::int64;
    Posting present;
    // int64, float64 (as float_key), time. Items of slots that are not present are 0.
    persistent::Array<std::int64_t, 9> numbers;
    NumberIndex number_index;
    // boolean
    std::array<Posting, 2> truths;
    // string; strings
    persistent::Array<TextRef, 6> texts;
    persistent::Array<Ref<TextList>, 6> lists;
    TextIndex text_index;

    [[nodiscard]] std::int64_t number(Slot slot) const noexcept {
        const std::int64_t* found = numbers.find(slot);
        return found == nullptr ? 0 : *found;
    }
    // nullptr for a slot without a value.
    [[nodiscard]] const TextRef* text(Slot slot) const noexcept {
        const TextRef* found = texts.find(slot);
        return found == nullptr || !*found ? nullptr : found;
    }
    [[nodiscard]] const TextList* list(Slot slot) const noexcept {
        const Ref<TextList>* found = lists.find(slot);
        return found == nullptr ? nullptr : found->get();
    }
    [[nodiscard]] Value value(Slot slot) const;  // of a slot that is present
};

struct MetadataState {
    std::vector<Ref<Field>> fields;
    std::vector<std::pair<std::string, std::size_t>> by_name;  // sorted
    Posting slots;

    [[nodiscard]] const Field* find(std::string_view name) const noexcept;
    [[nodiscard]] Field& edit(std::size_t field, Owner owner) { return persistent::own(fields[field], owner); }
    // The place of the field, made if it is new.
    std::size_t require(std::string_view name, FieldType type, Owner owner);
};

void set_value(Field& field, Slot slot, const Value& value, Owner owner);
void clear_value(Field& field, Slot slot, Owner owner);

struct MetadataShared {
    MetadataShared() : published(std::make_shared<const MetadataState>()) {}
    persistent::Published<MetadataState> published;
    std::atomic<bool> writing = false;
    // Written by the one writer only.
    Owner last_owner = persistent::nobody;
};

}  // namespace sage::vdb::detail
