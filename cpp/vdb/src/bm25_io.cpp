// The stored form of the text index. All numbers are little endian; "varint" is LEB128.
//
//   "SAGEBM25"  version: u32 = 1  k1: f64  b: f64
//   documents: varint, then per document: the first slot or the gap to the next one, less 1 (varint), tokens (varint)
//   terms: varint, then per term, ascending: length and bytes; documents: varint, then per document: slot as above, count
#include <algorithm>

#include "bm25_state.hpp"
#include "byte_stream.hpp"

namespace sage::vdb {
namespace {

using detail::Bm25State;
using detail::Document;
using detail::Occurrence;
using detail::TextRef;
using Reader = ByteReader<Corruption>;

constexpr std::string_view magic = "SAGEBM25";
constexpr std::uint32_t version = 1;
constexpr std::uint64_t number_max = 0xFFFF'FFFF;
constexpr auto nowhere = [](const auto&) { return false; };

class SlotWriter {
public:
    void write(ByteWriter& out, Slot slot) {
        out.varint(slot - next_);
        next_ = std::uint64_t{slot} + 1;
    }

private:
    std::uint64_t next_ = 0;
};

class SlotReader {
public:
    Slot read(Reader& in) {
        const std::uint64_t gap = in.varint(slot_max);
        in.require(next_ + gap <= slot_max, "a slot is too large");
        const auto slot = static_cast<Slot>(next_ + gap);
        next_ += gap + 1;
        return slot;
    }

private:
    std::uint64_t next_ = 0;
};

// What is read, in arrays: documents in ascending order of slots, postings in the order of terms.
struct Loaded {
    std::vector<Slot> slots;
    std::vector<std::uint32_t> lengths;
    std::vector<std::uint32_t> missing;   // tokens that no term has accounted for yet
    std::vector<std::uint32_t> distinct;  // terms
    std::vector<std::uint32_t> places;    // of each posting: its document
    std::vector<std::size_t> ends;        // of each term, in places
};

Loaded read_documents(Reader& in) {
    Loaded loaded;
    const std::size_t count = in.count(std::size_t{slot_max} + 1, 2);
    loaded.slots.reserve(count);
    loaded.lengths.reserve(count);
    SlotReader slots;
    for (std::size_t i = 0; i < count; ++i) {
        loaded.slots.push_back(slots.read(in));
        loaded.lengths.push_back(static_cast<std::uint32_t>(in.varint(number_max)));
    }
    loaded.missing = loaded.lengths;
    loaded.distinct.assign(count, 0);
    return loaded;
}

// The place of `slot` at or behind `from`. Slots ascend, so it is no further away than the slots are; where they lie
// densely it is just there.
std::size_t place_of(const Reader& in, const std::vector<Slot>& slots, std::size_t from, Slot slot) {
    in.require(from < slots.size() && slot >= slots[from], "a term is in an unknown document");
    const std::size_t furthest = std::min<std::size_t>(slots.size() - 1, from + (slot - slots[from]));
    if (slots[furthest] == slot) {
        return furthest;
    }
    const auto end = slots.begin() + static_cast<std::ptrdiff_t>(furthest);
    const auto found = std::lower_bound(slots.begin() + static_cast<std::ptrdiff_t>(from), end, slot);
    in.require(found != end && *found == slot, "a term is in an unknown document");
    return static_cast<std::size_t>(found - slots.begin());
}

detail::Occurrences read_occurrences(Reader& in, Loaded& loaded, detail::Owner owner) {
    const std::size_t count = in.count(loaded.slots.size(), 2);
    in.require(count > 0, "a term is in no document");
    std::vector<Slot> keys(count);
    std::vector<Occurrence> values(count);
    SlotReader slots;
    std::size_t place = 0;
    for (std::size_t i = 0; i < count; ++i) {
        keys[i] = slots.read(in);
        place = place_of(in, loaded.slots, place, keys[i]);
        const std::uint64_t repeated = in.varint(loaded.missing[place]);
        in.require(repeated > 0, "a term is in a document no time");
        values[i] = {static_cast<std::uint32_t>(repeated), loaded.lengths[place]};
        loaded.missing[place] -= values[i].count;
        ++loaded.distinct[place];
        loaded.places.push_back(static_cast<std::uint32_t>(place));
    }
    loaded.ends.push_back(loaded.places.size());
    return detail::Occurrences::build(std::move(keys), std::move(values), owner);
}

void read_terms(Reader& in, Loaded& loaded, Bm25State& state, detail::Owner owner) {
    const std::size_t count = in.count(number_max, 4);
    std::vector<TextRef> names;
    std::vector<std::uint32_t> numbers;
    for (std::uint32_t number = 0; number < count; ++number) {
        const TextRef name(in.text(number_max));
        in.require(!name.view().empty(), "a term is empty");
        in.require(names.empty() || names.back() < name, "terms are not in ascending order");
        detail::Term& term = state.terms.edit(number, owner);
        term.name = name;
        term.occurrences = read_occurrences(in, loaded, owner);
        names.push_back(name);
        numbers.push_back(number);
    }
    state.names = persistent::Tree<detail::NameTraits>::build(std::move(names), std::move(numbers), owner);
    state.number_end = static_cast<std::uint32_t>(count);
}

void make_documents(const Loaded& loaded, Bm25State& state, detail::Owner owner) {
    std::vector<persistent::Ref<Document>> documents;
    documents.reserve(loaded.slots.size());
    for (std::size_t i = 0; i < loaded.slots.size(); ++i) {
        auto document = persistent::make_node<Document>();
        document->length = loaded.lengths[i];
        document->terms.reserve(loaded.distinct[i]);
        state.documents.edit(loaded.slots[i], owner) = document;
        state.slots.insert(loaded.slots[i], owner);
        state.total_length += loaded.lengths[i];
        documents.push_back(std::move(document));
    }
    std::size_t posting = 0;
    for (std::uint32_t number = 0; number < loaded.ends.size(); ++number) {
        for (; posting < loaded.ends[number]; ++posting) {
            documents[loaded.places[posting]]->terms.push_back(number);
        }
    }
}

}  // namespace

std::vector<std::byte> Bm25Snapshot::save() const {
    ByteWriter out;
    out.raw(magic);
    out.fixed(version);
    out.fixed(state_->options.k1);
    out.fixed(state_->options.b);
    SlotSet slots(state_->slots.end());
    state_->slots.add_to(slots);
    out.varint(slots.count());
    SlotWriter gaps;
    slots.for_each([&](Slot slot) {
        gaps.write(out, slot);
        out.varint((*state_->documents.find(slot))->length);
    });
    out.varint(state_->names.size());
    state_->names.for_each(nowhere, nowhere, [&](const TextRef& name, std::uint32_t number) {
        const detail::Occurrences& occurrences = state_->terms.find(number)->occurrences;
        out.text(name.view());
        out.varint(occurrences.size());
        SlotWriter places;
        occurrences.for_each(nowhere, nowhere, [&](Slot slot, const Occurrence& occurrence) {
            places.write(out, slot);
            out.varint(occurrence.count);
        });
    });
    return out.take();
}

Bm25Index Bm25Index::load(std::span<const std::byte> bytes) {
    Reader in(bytes, "text index");
    const ByteReader<UnsupportedFormat> head(bytes, "text index");
    head.require(bytes.size() >= magic.size() + sizeof version && in.raw(magic.size()) == magic,
                 "these bytes do not begin as a text index does");
    const auto found = in.fixed<std::uint32_t>();
    head.require(found == version, "it is of another version than 1; a newer release wrote it");
    auto state = std::make_shared<Bm25State>();
    state->options.k1 = in.fixed<double>();
    state->options.b = in.fixed<double>();
    in.require(std::isfinite(state->options.k1) && state->options.k1 >= 0, "k1 is not finite and >= 0");
    in.require(state->options.b >= 0 && state->options.b <= 1, "b is not between 0 and 1");
    Bm25Index loaded(state->options);
    const detail::Owner owner = ++loaded.shared_->last_owner;
    Loaded contents = read_documents(in);
    read_terms(in, contents, *state, owner);
    in.finish();
    in.require(std::all_of(contents.missing.begin(), contents.missing.end(), [](std::uint32_t left) { return left == 0; }),
               "a document has tokens that no term has");
    make_documents(contents, *state, owner);
    loaded.shared_->published.store(std::move(state));
    return loaded;
}

}  // namespace sage::vdb
