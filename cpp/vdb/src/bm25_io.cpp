// The stored form of the text index. All numbers are little endian; "varint" is LEB128.
//
//   "SAGEBM25"  version: u32 = 1  k1: f64  b: f64
//   documents: varint, then per document: the first slot or the gap to the next one, less 1 (varint), tokens (varint)
//   terms: varint, then per term, ascending: length and bytes; documents: varint, then per document: slot as above, count
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

struct Loaded {
    Slot slot;
    std::uint64_t missing;  // tokens that no term has accounted for yet
    std::uint32_t length;
    std::vector<std::uint32_t> terms;
};

std::vector<Loaded> read_documents(Reader& in) {
    std::vector<Loaded> documents;
    const std::size_t count = in.count(std::size_t{slot_max} + 1, 2);
    documents.reserve(count);
    SlotReader slots;
    for (std::size_t i = 0; i < count; ++i) {
        const Slot slot = slots.read(in);
        const std::uint64_t length = in.varint(number_max);
        documents.push_back({slot, length, static_cast<std::uint32_t>(length), {}});
    }
    return documents;
}

void read_term(Reader& in, Bm25State& state, std::vector<Loaded>& documents, std::uint32_t number, detail::Owner owner) {
    const TextRef name(in.text(number_max));
    in.require(!name.view().empty(), "a term is empty");
    in.require(number == 0 || state.terms.find(number - 1)->name < name, "terms are not in ascending order");
    const std::size_t count = in.count(documents.size(), 2);
    in.require(count > 0, "a term is in no document");
    detail::Term& term = state.terms.edit(number, owner);
    term.name = name;
    SlotReader slots;
    auto document = documents.begin();
    for (std::size_t i = 0; i < count; ++i) {
        const Slot slot = slots.read(in);
        // The next one is near: steps that double, then the middle of the last one.
        std::ptrdiff_t step = 1;
        while (documents.end() - document > step && document[step].slot < slot) {
            document += step;
            step *= 2;
        }
        document = std::lower_bound(document, documents.end() - document > step ? document + step + 1 : documents.end(),
                                    slot, [](const Loaded& entry, Slot wanted) { return entry.slot < wanted; });
        in.require(document != documents.end() && document->slot == slot, "a term is in an unknown document");
        const std::uint64_t repeated = in.varint(document->missing);
        in.require(repeated > 0, "a term is in a document no time");
        document->missing -= repeated;
        document->terms.push_back(number);
        const Occurrence occurrence{static_cast<std::uint32_t>(repeated), document->length};
        term.occurrences.change(slot, owner, [occurrence](Occurrence& value) {
            value = occurrence;
            return detail::Occurrences::Change{{occurrence, true}, true};
        });
    }
    state.names.change(name, owner, [number](std::uint32_t& value) {
        value = number;
        return persistent::Tree<detail::NameTraits>::Change{{}, true};
    });
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
    std::vector<Loaded> documents = read_documents(in);
    const std::size_t terms = in.count(number_max, 4);
    for (std::uint32_t number = 0; number < terms; ++number) {
        read_term(in, *state, documents, number, owner);
    }
    state->number_end = static_cast<std::uint32_t>(terms);
    in.finish();
    for (Loaded& entry : documents) {
        in.require(entry.missing == 0, "a document has tokens that no term has");
        auto document = persistent::make_node<Document>();
        document->length = entry.length;
        document->terms = std::move(entry.terms);
        document->terms.shrink_to_fit();
        state->documents.edit(entry.slot, owner) = document;
        state->slots.insert(entry.slot, owner);
        state->total_length += entry.length;
    }
    loaded.shared_->published.store(std::move(state));
    return loaded;
}

}  // namespace sage::vdb
