// Collections in snapshots.
//
// Sections of collection n; those that would hold nothing are left out:
//   n/state     varint slot_end; a bit for each slot: the index holds it; kind of ids; varint number of documents;
//               for each document, in order of heads: varint number of slots, slots (varint), id, 1 and text or 0;
//               under cosine a float for each of its slots: the length
//   n/exact     under cosine, of vectors that came back rounded: the first slot or the gap to the next one, less 1
//               (varint), 0, the length (a double) and two bits for each value, low ones first: by how many floats it is
//               away from the row times that, plus 1; or 1 and the whole vector
//   n/metadata, n/words   as Metadata and Bm25Index save them
//   n/tail      slots (uint32) of the vectors outside of the index
//   n/rows      those vectors
//   n/index     as the index saves itself
#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>

#include "collection/core.hpp"
#include "collection/records.hpp"
#include "collection/transaction.hpp"

namespace sage::vdb::detail {
namespace {

constexpr double length_limit = 1e19;  // of vectors, a little above the longest ones

std::string section(std::uint64_t number, const char* name) { return std::to_string(number) + "/" + name; }

template <class Number>
storage::Bytes bytes_of(const std::vector<Number>& numbers) {
    return std::as_bytes(std::span(numbers));
}

// What makes the vectors of length 1 again what they were; nothing where nothing was lost.
std::vector<std::byte> save_exact(const CollectionState& state, std::size_t slot_end, std::size_t dimension) {
    ByteWriter out;
    std::uint64_t next = 0;
    for (Slot slot = 0; slot < slot_end; ++slot) {
        if (const Correction* correction = state.correction(slot); correction != nullptr) {
            out.varint(slot - next);
            next = std::uint64_t{slot} + 1;
            const bool whole = correction->bytes.size() == dimension * sizeof(float);
            out.u8(whole ? 1 : 0);
            if (!whole) {
                out.fixed(correction->length);
            }
            out.raw({reinterpret_cast<const char*>(correction->bytes.data()), correction->bytes.size()});
        }
    }
    return out.take();
}

// Large parts of a snapshot are read beside each other.
template <class Read>
auto read_beside(std::size_t bytes, Read read) {
    constexpr std::size_t worth_a_thread = std::size_t{1} << 20;
    const auto beside = std::launch::async | std::launch::deferred;  // the latter where there can be no more threads
    return std::async(bytes < worth_a_thread ? std::launch::deferred : beside, std::move(read));
}

}  // namespace

void CollectionCore::freeze(Frozen& frozen) const {
    const std::lock_guard<std::mutex> lock(write_mutex_);
    frozen.holders = holders_;
    frozen.view.emplace(epochs_, published_);
}

std::vector<std::byte> CollectionCore::save_state(const Frozen& frozen) const {
    const CollectionState& state = **frozen.view;
    const std::vector<std::uint8_t>& holders = frozen.holders;
    ByteWriter out;
    out.varint(holders.size());
    for (std::size_t first = 0; first < holders.size(); first += 8) {
        unsigned bits = 0;
        for (std::size_t i = first; i < std::min(first + 8, holders.size()); ++i) {
            bits |= (holders[i] & in_main) != 0 ? 1U << (i - first) : 0U;
        }
        out.u8(static_cast<std::uint8_t>(bits));
    }
    out.u8(static_cast<std::uint8_t>(state.id_kind));
    out.varint(state.documents);
    for (Slot head = 0; head < holders.size(); ++head) {
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

void CollectionCore::save_tail(storage::SnapshotWriter& writer, const Frozen& frozen) const {
    const CollectionState& state = **frozen.view;
    std::vector<Slot> slots;
    for (Slot slot = 0; slot < frozen.holders.size(); ++slot) {
        if (state.info(slot).head != no_head && (frozen.holders[slot] & in_main) == 0) {
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

void CollectionCore::save(storage::SnapshotWriter& writer, const Frozen& frozen) const {
    const CollectionState& state = **frozen.view;
    if (frozen.holders.empty() && state.metadata->field_names().empty()) {
        return;  // never held anything
    }
    writer.add_section(section(number_, "state"), save_state(frozen));
    if (const std::vector<std::byte> exact = save_exact(state, frozen.holders.size(), options_.dimension); !exact.empty()) {
        writer.add_section(section(number_, "exact"), exact);
    }
    writer.add_section(section(number_, "metadata"), state.metadata->save());
    if (state.words->size() > 0) {
        writer.add_section(section(number_, "words"), state.words->save());
    }
    save_tail(writer, frozen);
    if (state.parts && state.parts->main) {
        writer.add_section(section(number_, "index"), state.parts->main->save());
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

void CollectionCore::load_exact(std::span<const std::byte> bytes, CollectionState& state) {
    const std::string what = "section '" + section(number_, "exact") + "' of a snapshot";
    StoredReader in(bytes, what.c_str());
    const Owner owner = ++last_owner_;
    std::uint64_t next = 0;
    while (in.left() > 0) {
        const std::uint64_t slot = next + in.varint(slot_max);
        in.require(slot < holders_.size() && state.info(static_cast<Slot>(slot)).head != no_head,
                   "a slot that no document has");
        next = slot + 1;
        const std::uint8_t whole = in.u8();
        in.require(whole <= 1, "a flag is neither 0 nor 1");
        Ref<Correction> correction = persistent::make_node<Correction>(owner);
        if (whole == 0) {
            correction->length = in.fixed<double>();
            in.require(correction->length >= 0 && correction->length < length_limit, "a length is not one of a vector");
        }
        const std::string_view given =
            in.raw(whole == 1 ? options_.dimension * sizeof(float) : correction_bytes(options_.dimension));
        correction->bytes.assign(given.begin(), given.end());
        if (whole == 1) {
            std::vector<float> vector(options_.dimension);
            std::memcpy(vector.data(), given.data(), given.size());
            in.require(std::all_of(vector.begin(), vector.end(), [](float value) { return std::isfinite(value); }),
                       "a vector is not finite");
        }
        state.corrections.edit(slot, owner) = correction;
    }
}

void CollectionCore::load_tail(const storage::Snapshot& snapshot, std::uint64_t number, const CollectionState& state,
                               FlatTail& tail) {
    const std::string what = "the sections of collection " + std::to_string(number) + " of '" + snapshot.path() + "'";
    const auto require = [&what](bool holds, const std::string& problem) {
        if (!holds) {
            throw Corruption(what + " do not belong together: " + problem);
        }
    };
    const storage::Bytes bytes = snapshot.verified_section(section(number, "tail"));
    const storage::Bytes rows = snapshot.verified_section(section(number, "rows"));
    // Sections lie at multiples of 64 bytes.
    const std::span slots(reinterpret_cast<const Slot*>(bytes.data()), bytes.size() / sizeof(Slot));
    require(rows.size() == slots.size() * options_.dimension * sizeof(float), "rows and slots");
    for (const Slot slot : slots) {
        require(slot < holders_.size() && holders_[slot] == 0 && state.info(slot).head != no_head,
                "a vector that no document has");
        holders_[slot] = in_tail;
    }
    const std::span values(reinterpret_cast<const float*>(rows.data()), rows.size() / sizeof(float));
    try {
        validate_vectors(options_, values, true, "rows");
    } catch (const InvalidArgument& error) {
        require(false, error.what());
    }
    tail.insert(slots, values);
}

void CollectionCore::load(const storage::Snapshot& snapshot, std::uint64_t number) {
    const auto name = [number](const char* part) { return section(number, part); };
    if (!snapshot.has_section(name("state"))) {
        return;
    }
    const auto bytes = [&](const char* part) { return snapshot.section(name(part)).size(); };
    const auto verified = [&](const char* part) { return snapshot.verified_section(name(part)); };
    std::future<Bm25Index> words;
    if (snapshot.has_section(name("words"))) {
        words = read_beside(bytes("words"), [&] { return Bm25Index::load(verified("words")); });
    }
    std::future<std::unique_ptr<Index>> index;
    if (snapshot.has_section(name("index"))) {
        index = read_beside(bytes("index"), [&] { return load_main(options_, verified("index")); });
    }
    load_state(verified("state"));
    auto state = std::make_shared<CollectionState>(*published_.load());
    if (snapshot.has_section(name("exact"))) {
        load_exact(verified("exact"), *state);
    }
    metadata_ = Metadata::load(verified("metadata"));
    state->metadata.emplace(metadata_.snapshot());
    auto parts = std::make_shared<Parts>();
    parts->tail = std::make_shared<FlatTail>(options_.dimension, options_.metric);
    if (snapshot.has_section(name("tail"))) {
        load_tail(snapshot, number, *state, *parts->tail);
    }
    if (words.valid()) {
        words_ = words.get();
        state->words.emplace(words_.snapshot());
    }
    if (index.valid()) {
        parts->main = index.get();
    }
    state->parts = parts;
    if (state->metadata->size() != state->documents || state->words->size() != state->text_count) {
        throw Corruption("the sections of collection " + std::to_string(number) + " of '" + snapshot.path() +
                         "' do not belong together: they hold different numbers of documents");
    }
    try {
        settle_slots(*state);
    } catch (const Corruption& error) {
        throw Corruption("the sections of collection " + std::to_string(number) + " of '" + snapshot.path() +
                         "' do not belong together: " + error.what());
    }
}

// Says of each slot who holds it, and publishes.
void CollectionCore::settle_slots(const CollectionState& loaded) {
    auto state = std::make_shared<CollectionState>(loaded);
    const auto& main = state->parts->main;
    std::size_t found = state->parts->tail->size();
    std::vector<Slot> gone;
    for (Slot slot = 0; slot < holders_.size(); ++slot) {
        const bool live = state->info(slot).head != no_head;
        const bool held = (holders_[slot] & in_main) != 0;
        if (live && held) {
            if (!main || !main->contains(slot)) {
                throw Corruption("a document whose vector is missing");
            }
            ++found;
        } else if (held) {
            gone.push_back(slot);
        } else if (!live) {
            free_.push_back(slot);
        }
    }
    if (found != state->vectors) {
        throw Corruption("a document whose vector is missing");
    }
    publish(state);
    if (!main) {
        note_free(gone, in_main);
    } else if (!gone.empty()) {
        main->remove(gone);
        if (main->stats().removed == 0) {
            note_free(gone, in_main);
        } else {
            const std::vector<Slot> freed = main->take_free();
            note_free(freed, in_main);
        }
    }
}

}  // namespace sage::vdb::detail
