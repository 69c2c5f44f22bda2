// The stored form of metadata. All numbers are little endian; "varint" is LEB128.
//
//   "SAGEMETA"  version: u32 = 1  slots: set  fields: varint
//   per field: name: text  type: u8  slots: set
//     int, float, time: one i64 or f64 per slot
//     bool:             one u8 per slot
//     string, list:     strings: varint, then each as text, ascending
//                       string: its number per slot (varint); list: count and numbers per slot
//   set: count: varint, then the first slot and the gaps to the next ones, less 1 (varint)
//   text: length: varint, bytes
#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "byte_stream.hpp"
#include "metadata_state.hpp"

namespace sage::vdb {
namespace {

using detail::Field;
using detail::MetadataState;
using detail::Posting;
using detail::TextRef;
using Reader = ByteReader<Corruption>;

constexpr std::string_view magic = "SAGEMETA";
constexpr std::uint32_t version = 1;

SlotSet set_of(const Posting& posting) {
    SlotSet all(posting.end());
    posting.add_to(all);
    return all;
}

void write_slots(ByteWriter& out, const SlotSet& slots) {
    out.varint(slots.count());
    std::uint64_t next = 0;
    slots.for_each([&out, &next](Slot slot) {
        out.varint(slot - next);
        next = std::uint64_t{slot} + 1;
    });
}

std::vector<Slot> read_slots(Reader& in) {
    std::vector<Slot> slots(in.count(std::size_t{slot_max} + 1));
    std::uint64_t next = 0;
    for (Slot& slot : slots) {
        const std::uint64_t gap = in.varint(slot_max);
        in.require(next + gap <= slot_max, "a slot is too large");
        slot = static_cast<Slot>(next + gap);
        next += gap + 1;
    }
    return slots;
}

void write_field(ByteWriter& out, const Field& field) {
    out.text(field.name);
    out.u8(static_cast<std::uint8_t>(field.type));
    const SlotSet slots = set_of(field.present);
    write_slots(out, slots);
    std::unordered_map<const persistent::Text*, std::size_t> numbers;
    if (field.type == FieldType::string || field.type == FieldType::strings) {
        out.varint(field.text_index.size());
        constexpr auto nowhere = [](const TextRef&) { return false; };
        field.text_index.for_each(nowhere, nowhere, [&](const TextRef& text, const Posting&) {
            numbers.emplace(text.get(), numbers.size());
            out.text(text.view());
        });
    }
    slots.for_each([&](Slot slot) {
        switch (field.type) {
            case FieldType::int64:
            case FieldType::time: out.fixed(field.number(slot)); break;
            case FieldType::float64: out.fixed(detail::float_of_key(field.number(slot))); break;
            case FieldType::boolean: out.u8(field.truths[1].contains(slot) ? 1 : 0); break;
            case FieldType::string: out.varint(numbers.at(field.text(slot)->get())); break;
            case FieldType::strings: {
                const auto& items = field.list(slot)->items;
                out.varint(items.size());
                for (const TextRef& item : items) {
                    out.varint(numbers.at(item.get()));
                }
                break;
            }
        }
    });
}

// The strings of a field, ascending, and the slots that have them.
struct Dictionary {
    std::vector<TextRef> texts;
    std::vector<Posting> slots;
};

Dictionary read_dictionary(Reader& in) {
    Dictionary dictionary;
    const std::size_t count = in.count(std::numeric_limits<std::uint32_t>::max());
    for (std::size_t i = 0; i < count; ++i) {
        dictionary.texts.emplace_back(in.text(Metadata::string_bytes_max));
        in.require(i == 0 || dictionary.texts[i - 1] < dictionary.texts[i], "strings are not in ascending order");
    }
    dictionary.slots.resize(count);
    return dictionary;
}

const TextRef& read_text(Reader& in, Dictionary& dictionary, Slot slot, detail::Owner owner) {
    in.require(!dictionary.texts.empty(), "a string is missing");
    const auto number = static_cast<std::size_t>(in.varint(dictionary.texts.size() - 1));
    dictionary.slots[number].insert(slot, owner);
    return dictionary.texts[number];
}

persistent::Ref<detail::TextList> read_list(Reader& in, Dictionary& dictionary, Slot slot, detail::Owner owner) {
    auto list = persistent::make_node<detail::TextList>();
    list->items.resize(in.count(Metadata::list_items_max));
    std::size_t total = 0;
    for (TextRef& item : list->items) {
        item = read_text(in, dictionary, slot, owner);
        total += item.view().size();
        in.require(total <= Metadata::list_bytes_max, "the strings of a list are too long");
    }
    return list;
}

Value read_value(Reader& in, FieldType type) {
    switch (type) {
        case FieldType::int64: return in.fixed<std::int64_t>();
        case FieldType::time: return Time{in.fixed<std::int64_t>()};
        case FieldType::float64: {
            const auto number = in.fixed<double>();
            in.require(!std::isnan(number), "a float is NaN");
            return number;
        }
        case FieldType::boolean: {
            const std::uint8_t truth = in.u8();
            in.require(truth <= 1, "a bool is neither 0 nor 1");
            return truth == 1;
        }
        case FieldType::string:
        case FieldType::strings: break;
    }
    in.fail("a value of a type that is read elsewhere");
}

void read_texts(Reader& in, const MetadataState& state, Field& field, std::span<const Slot> slots, detail::Owner owner) {
    Dictionary dictionary = read_dictionary(in);
    for (const Slot slot : slots) {
        in.require(state.slots.contains(slot), "a slot with a value has no record");
        if (field.type == FieldType::string) {
            field.texts.edit(slot, owner) = read_text(in, dictionary, slot, owner);
        } else {
            field.lists.edit(slot, owner) = read_list(in, dictionary, slot, owner);
        }
        field.present.insert(slot, owner);
    }
    in.require(std::all_of(dictionary.slots.begin(), dictionary.slots.end(),
                           [](const Posting& slots_of) { return slots_of.count() > 0; }),
               "a string is in no slot");
    field.text_index = detail::TextIndex::build(std::move(dictionary.texts), std::move(dictionary.slots), owner);
}

void read_field(Reader& in, MetadataState& state, detail::Owner owner) {
    const std::string name(in.text(Metadata::field_name_bytes_max));
    in.require(!name.empty(), "a field has no name");
    in.require(state.find(name) == nullptr, "a field is there twice");
    const auto type = static_cast<FieldType>(in.u8());
    in.require(type >= FieldType::int64 && type <= FieldType::time, "a field has an unknown type");
    const std::vector<Slot> slots = read_slots(in);
    Field& field = state.edit(state.require(name, type, owner), owner);
    if (type == FieldType::string || type == FieldType::strings) {
        read_texts(in, state, field, slots, owner);
        return;
    }
    for (const Slot slot : slots) {
        in.require(state.slots.contains(slot), "a slot with a value has no record");
        set_value(field, slot, read_value(in, type), owner);
    }
}

}  // namespace

std::vector<std::byte> MetadataSnapshot::save() const {
    ByteWriter out;
    out.raw(magic);
    out.fixed(version);
    write_slots(out, set_of(state_->slots));
    out.varint(state_->fields.size());
    for (const auto& field : state_->fields) {
        write_field(out, *field);
    }
    return out.take();
}

Metadata Metadata::load(std::span<const std::byte> bytes) {
    Reader in(bytes, "metadata");
    const ByteReader<UnsupportedFormat> head(bytes, "metadata");
    head.require(bytes.size() >= magic.size() + sizeof version && in.raw(magic.size()) == magic,
                 "these bytes do not begin as metadata do");
    const auto found = in.fixed<std::uint32_t>();
    head.require(found == version, "it is of another version than 1; a newer release wrote it");
    Metadata loaded;
    const detail::Owner owner = ++loaded.shared_->last_owner;
    auto state = std::make_shared<MetadataState>();
    for (const Slot slot : read_slots(in)) {
        state->slots.insert(slot, owner);
    }
    const std::size_t fields = in.count(fields_max);
    for (std::size_t field = 0; field < fields; ++field) {
        read_field(in, *state, owner);
    }
    in.finish();
    loaded.shared_->published.store(std::move(state));
    return loaded;
}

}  // namespace sage::vdb
