// The versions of a collection that readers get. Internal.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collection/flat_tail.hpp"
#include "collection/vector_part.hpp"
#include "persistent/array.hpp"
#include "persistent/ref.hpp"
#include "persistent/text.hpp"
#include "persistent/tree.hpp"
#include "sage/vdb/bm25.hpp"
#include "sage/vdb/document.hpp"
#include "sage/vdb/metadata.hpp"

namespace sage::vdb::detail {

using persistent::Owner;
using persistent::Ref;
using persistent::TextRef;

template <class KeyType>
struct IdTraits {
    using Key = KeyType;
    using Value = Slot;
    struct Summary {};
    using Delta = Summary;
    static constexpr std::size_t leaf_capacity = 64;
    static constexpr std::size_t inner_capacity = 32;
    static Summary summarize(const std::vector<Key>& /*keys*/, const std::vector<Value>& /*values*/) { return {}; }
    static void merge(Summary& /*sum*/, const Summary& /*part*/) {}
    static bool apply(Summary& /*sum*/, const Delta& /*delta*/) { return true; }
};

struct SlotInfo {
    Slot head = no_head;  // of the document that has this vector; no_head: none has
    float length = 1;     // of the vector as it was given, under cosine
};

// By what a vector has become a row of length 1.
struct RowLength {
    double value = 1;
    bool settled = true;  // bringing the row to length 1 once more, as an index does, changes nothing
};
// By it a vector that is kept at length 1 comes back bit by bit. Row times `length` is off by one float at most: two bits
// for each value say in which direction. Vectors of which that is not true are kept whole.
struct Correction : persistent::Node {
    using Node::Node;
    double length = 1;
    std::vector<std::uint8_t> bytes;
};
// nullptr where nothing is lost.
[[nodiscard]] Ref<Correction> correction_of(std::span<const float> original, std::span<const float> row,
                                            RowLength length, Owner owner);
[[nodiscard]] constexpr std::size_t correction_bytes(std::size_t dimension) { return (dimension + 3) / 4; }
// Makes the vector of the kept row, in place.
void restore_vector(std::span<float> row, float length, const Correction* correction);

// Of documents with more than one vector.
struct SlotList : persistent::Node {
    using Node::Node;
    std::vector<Slot> slots;  // the head first
};

// Where the vectors are. Changes of their contents are seen by all versions; who holds an epoch's guard finds every
// vector of its version in one of them, the tail looked at first.
struct Parts {
    std::shared_ptr<FlatTail> tail;    // nullptr: there never was a vector
    std::shared_ptr<Index> main;     // nullptr: the tail answers alone
};

// One version: a document's first slot is its head, by which its id, metadata and text are found.
struct CollectionState {
    IdKind id_kind = IdKind::none;
    std::size_t documents = 0;
    std::size_t vectors = 0;
    std::size_t multiple = 0;  // documents with more than one vector
    std::size_t text_count = 0;
    persistent::Array<SlotInfo, 7> slots;
    persistent::Tree<IdTraits<std::int64_t>> numbers;  // id -> head
    persistent::Tree<IdTraits<TextRef>> names;
    persistent::Array<std::int64_t, 8> number_of;  // head -> id
    persistent::Array<TextRef, 6> name_of;
    persistent::Array<Ref<SlotList>, 5> lists;  // by head
    persistent::Array<Ref<Correction>, 5> corrections;
    persistent::Array<TextRef, 6> texts;        // by head
    std::optional<MetadataSnapshot> metadata;   // always there after construction
    std::optional<Bm25Snapshot> words;
    std::shared_ptr<const Parts> parts;

    [[nodiscard]] SlotInfo info(Slot slot) const noexcept {
        const SlotInfo* found = slots.find(slot);
        return found == nullptr ? SlotInfo{} : *found;
    }
    [[nodiscard]] Slot find(const DocumentId& id) const;  // the head, or no_head
    [[nodiscard]] Slot find(std::int64_t id) const {
        const Slot* head = numbers.find(id);
        return head == nullptr ? no_head : *head;
    }
    [[nodiscard]] Slot find(std::string_view id) const {
        const Slot* head = names.find(id);
        return head == nullptr ? no_head : *head;
    }
    [[nodiscard]] DocumentId id_of(Slot head) const;
    void append_id(Slot head, IdList& ids) const;
    [[nodiscard]] IdList empty_ids() const;
    [[nodiscard]] const SlotList* list(Slot head) const noexcept {
        const Ref<SlotList>* found = lists.find(head);
        return found == nullptr ? nullptr : found->get();
    }
    [[nodiscard]] const TextRef* text(Slot head) const noexcept {
        const TextRef* found = texts.find(head);
        return found == nullptr || !*found ? nullptr : found;
    }
    template <class Visit>
    void for_each_slot(Slot head, Visit&& visit) const {
        if (const SlotList* several = list(head)) {
            for (const Slot slot : several->slots) {
                visit(slot);
            }
        } else {
            visit(head);
        }
    }
    [[nodiscard]] const Correction* correction(Slot slot) const noexcept {
        const Ref<Correction>* found = corrections.find(slot);
        return found == nullptr ? nullptr : found->get();
    }
    // The heads of all documents in the order of their ids, those behind `after`.
    template <class Visit>
    void for_each_document(const std::optional<DocumentId>& after, const bool& enough, Visit&& visit) const;
};

template <class Visit>
void CollectionState::for_each_document(const std::optional<DocumentId>& after, const bool& enough, Visit&& visit) const {
    const auto stop = [&enough](const auto&) { return enough; };
    if (id_kind == IdKind::text) {
        names.for_each(
            [&after](const TextRef& key) { return after && !(std::get<std::string>(*after) < key.view()); }, stop,
            [&visit](const TextRef&, Slot head) { visit(head); });
    } else {
        numbers.for_each([&after](std::int64_t key) { return after && key <= std::get<std::int64_t>(*after); }, stop,
                         [&visit](std::int64_t, Slot head) { visit(head); });
    }
}

}  // namespace sage::vdb::detail
