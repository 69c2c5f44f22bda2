// Collections in snapshots.
//
// Sections of collection n; those that would hold nothing are left out:
//   n/state     varint slot_end; a bit for each slot: the index holds it; kind of ids; varint number of documents;
//               for each document, in order of heads: varint number of slots, slots (varint), id, 1 and text or 0;
//               under cosine a float for each of its slots: the length
//   n/metadata, n/words   as Metadata and Bm25Index save them
//   n/tail      slots (uint32) of the vectors outside of the index
//   n/rows      those vectors
//   n/index     as the index saves itself
#include <algorithm>

#include "collection/core.hpp"
#include "collection/records.hpp"
#include "collection/transaction.hpp"

namespace sage::vdb::detail {
namespace {

std::string section(std::uint64_t number, const char* name) { return std::to_string(number) + "/" + name; }

template <class Number>
storage::Bytes bytes_of(const std::vector<Number>& numbers) {
    return std::as_bytes(std::span(numbers));
}

}  // namespace

std::vector<std::byte> CollectionCore::save_state(const CollectionState& state) const {
    ByteWriter out;
    out.varint(holders_.size());
    for (std::size_t first = 0; first < holders_.size(); first += 8) {
        unsigned bits = 0;
        for (std::size_t i = first; i < std::min(first + 8, holders_.size()); ++i) {
            bits |= (holders_[i] & in_main) != 0 ? 1U << (i - first) : 0U;
        }
        out.u8(static_cast<std::uint8_t>(bits));
    }
    out.u8(static_cast<std::uint8_t>(state.id_kind));
    out.varint(state.documents);
    for (Slot head = 0; head < holders_.size(); ++head) {
        if (state.info(head).head != head) {
            continue;
        }
        const SlotList* several = state.list(head);
        out.varint(several == nullptr ? 1 : several->slots.size());
        state.for_each_slot(head, [&out](Slot slot) { out.varint(slot); });
        if (state.id_kind == IdKind::text) {
            out.text(state.name_of.find(head)->view());
        } else {
            out.fixed(*state.number_of.find(head));
        }
        const TextRef* text = state.text(head);
        out.u8(text == nullptr ? 0 : 1);
        if (text != nullptr) {
            out.text(text->view());
        }
        if (options_.metric == Metric::cosine) {
            state.for_each_slot(head, [&](Slot slot) { out.fixed(state.info(slot).length); });
        }
    }
    return out.take();
}

void CollectionCore::save_tail(storage::SnapshotWriter& writer, const CollectionState& state) const {
    std::vector<Slot> slots;
    for (Slot slot = 0; slot < holders_.size(); ++slot) {
        if (state.info(slot).head != no_head && (holders_[slot] & in_main) == 0) {
            slots.push_back(slot);
        }
    }
    if (slots.empty()) {
        return;
    }
    writer.add_section(section(number_, "tail"), bytes_of(slots));
    writer.begin_section(section(number_, "rows"));
    for (const Slot slot : slots) {
        writer.write(std::as_bytes(std::span(state.parts->tail->row(slot), options_.dimension)));
    }
}

void CollectionCore::save(storage::SnapshotWriter& writer) {
    const std::lock_guard<std::mutex> main_lock(main_mutex_);
    const std::lock_guard<std::mutex> lock(write_mutex_);
    const auto state = published_.load();
    if (holders_.empty() && state->metadata->field_names().empty()) {
        return;  // never held anything
    }
    writer.add_section(section(number_, "state"), save_state(*state));
    writer.add_section(section(number_, "metadata"), state->metadata->save());
    if (state->words->size() > 0) {
        writer.add_section(section(number_, "words"), state->words->save());
    }
    save_tail(writer, *state);
    if (state->parts && state->parts->main) {
        writer.add_section(section(number_, "index"), state->parts->main->save());
    }
}

void CollectionCore::load_state(std::span<const std::byte> bytes) {
    const std::string what = "section '" + section(number_, "state") + "' of a snapshot";
    StoredReader in(bytes, what.c_str());
    const std::size_t slot_end = in.varint(slot_max);
    const std::string_view main_bits = in.raw((slot_end + 7) / 8);
    holders_.assign(slot_end, 0);
    for (std::size_t i = 0; i < slot_end; ++i) {
        holders_[i] = ((static_cast<unsigned char>(main_bits[i / 8]) >> (i % 8)) & 1U) != 0 ? in_main : 0;
    }
    const auto id_kind = static_cast<IdKind>(in.u8());
    in.require(id_kind <= IdKind::text, "an unknown kind of ids");
    const std::size_t count = in.count(slot_end, 4);
    in.require(count == 0 || id_kind != IdKind::none, "documents without ids");
    const Owner owner = ++last_owner_;
    auto state = std::make_shared<CollectionState>(*published_.load());
    state->id_kind = id_kind;
    std::vector<Slot> slots;
    for (std::size_t i = 0; i < count; ++i) {
        slots.resize(in.count(Collection::vectors_per_document_max));
        in.require(!slots.empty(), "a document without vectors");
        for (Slot& slot : slots) {
            slot = static_cast<Slot>(in.varint(slot_end - 1));
            in.require(state->info(slot).head == no_head, "a slot that belongs to two documents");
            state->slots.edit(slot, owner).head = slots.front();
        }
        const Slot head = slots.front();
        if (id_kind == IdKind::text) {
            const TextRef name(in.text(Collection::id_bytes_max));
            in.require(state->names.find(name) == nullptr, "an id that two documents have");
            state->names.change(name, owner, [head](Slot& value) {
                value = head;
                return persistent::Tree<IdTraits<TextRef>>::Change{{}, true};
            });
            state->name_of.edit(head, owner) = name;
        } else {
            const auto number = in.fixed<std::int64_t>();
            in.require(state->numbers.find(number) == nullptr, "an id that two documents have");
            state->numbers.change(number, owner, [head](Slot& value) {
                value = head;
                return persistent::Tree<IdTraits<std::int64_t>>::Change{{}, true};
            });
            state->number_of.edit(head, owner) = number;
        }
        if (in.u8() != 0) {
            state->texts.edit(head, owner) = TextRef(in.text(Collection::text_bytes_max));
            ++state->text_count;
        }
        if (options_.metric == Metric::cosine) {
            for (const Slot slot : slots) {
                state->slots.edit(slot, owner).length = in.fixed<float>();
            }
        }
        if (slots.size() > 1) {
            Ref<SlotList> list = persistent::make_node<SlotList>(owner);
            list->slots = slots;
            state->lists.edit(head, owner) = list;
            ++state->multiple;
        }
        state->vectors += slots.size();
    }
    in.finish();
    state->documents = count;
    publish(std::move(state));
}

void CollectionCore::load(const storage::Snapshot& snapshot) {
    if (!snapshot.has_section(section(number_, "state"))) {
        return;
    }
    load_state(snapshot.verified_section(section(number_, "state")));
    auto state = std::make_shared<CollectionState>(*published_.load());
    metadata_ = Metadata::load(snapshot.verified_section(section(number_, "metadata")));
    state->metadata.emplace(metadata_.snapshot());
    if (snapshot.has_section(section(number_, "words"))) {
        words_ = Bm25Index::load(snapshot.verified_section(section(number_, "words")));
        state->words.emplace(words_.snapshot());
    }
    const std::string what = "the sections of collection " + std::to_string(number_) + " of '" + snapshot.path() + "'";
    const auto require = [&what](bool holds, const char* problem) {
        if (!holds) {
            throw Corruption(what + " do not belong together: " + problem);
        }
    };
    require(state->metadata->size() == state->documents && state->words->size() == state->text_count,
            "they hold different numbers of documents");
    auto parts = std::make_shared<Parts>();
    parts->tail = std::make_shared<FlatTail>(options_.dimension, options_.metric);
    std::size_t found = 0;
    if (snapshot.has_section(section(number_, "tail"))) {
        const storage::Bytes bytes = snapshot.verified_section(section(number_, "tail"));
        const storage::Bytes rows = snapshot.verified_section(section(number_, "rows"));
        // Sections lie at multiples of 64 bytes.
        const std::span slots(reinterpret_cast<const Slot*>(bytes.data()), bytes.size() / sizeof(Slot));
        require(rows.size() == slots.size() * options_.dimension * sizeof(float), "rows and slots");
        for (const Slot slot : slots) {
            require(slot < holders_.size() && holders_[slot] == 0 && state->info(slot).head != no_head,
                    "a vector that no document has");
            holders_[slot] = in_tail;
        }
        const std::span values(reinterpret_cast<const float*>(rows.data()), rows.size() / sizeof(float));
        try {
            validate_vectors(options_, values, true, "rows");
        } catch (const InvalidArgument& error) {
            require(false, error.what());
        }
        parts->tail->insert(slots, values);
        found = slots.size();
    }
    if (snapshot.has_section(section(number_, "index"))) {
        parts->main = load_main(options_, snapshot.verified_section(section(number_, "index")));
    }
    state->parts = parts;
    std::vector<Slot> gone;
    for (Slot slot = 0; slot < holders_.size(); ++slot) {
        const bool live = state->info(slot).head != no_head;
        const bool held = (holders_[slot] & in_main) != 0;
        if (live && held) {
            require(parts->main && parts->main->contains(slot), "a document whose vector is missing");
            ++found;
        } else if (held) {
            gone.push_back(slot);
        } else if (!live) {
            free_.push_back(slot);
        }
    }
    require(found == state->vectors, "a document whose vector is missing");
    publish(std::move(state));
    if (!parts->main) {
        note_free(gone, in_main);
    } else if (!gone.empty()) {
        parts->main->remove(gone);
        if (parts->main->stats().removed == 0) {
            note_free(gone, in_main);
        } else {
            const std::vector<Slot> freed = parts->main->take_free();
            note_free(freed, in_main);
        }
    }
}

}  // namespace sage::vdb::detail
