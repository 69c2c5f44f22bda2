#include "sage/vdb/metadata.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "metadata_state.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb {
namespace detail {
namespace {

// Changes the posting of `key`; an entry without slots goes.
template <class Index, class Key>
void index_insert(Index& index, const Key& key, Slot slot, Owner owner) {
    index.change(key, owner, [slot, owner](Posting& posting) {
        const std::int64_t entries = posting.count() == 0 ? 1 : 0;
        const std::int64_t slots = posting.insert(slot, owner) ? 1 : 0;
        return typename Index::Change{{slots, entries}, true};
    });
}
template <class Index, class Key>
void index_erase(Index& index, const Key& key, Slot slot, Owner owner) {
    index.change(key, owner, [slot, owner](Posting& posting) {
        const std::int64_t slots = posting.erase(slot, owner) ? -1 : 0;
        const bool keep = posting.count() > 0;
        return typename Index::Change{{slots, keep ? 0 : -1}, keep};
    });
}

std::int64_t number_key(const Value& value) {
    if (const auto* number = std::get_if<std::int64_t>(&value)) {
        return *number;
    }
    if (const auto* number = std::get_if<double>(&value)) {
        return float_key(*number);
    }
    return std::get<Time>(value).microseconds;
}

// The string that the index has already, else a new one.
TextRef intern(const TextIndex& index, std::string_view text) {
    const TextRef* known = index.find_key(text);
    return known != nullptr ? *known : TextRef(text);
}

// Each string of a list once.
std::vector<TextRef> distinct(const TextList& list) {
    std::vector<TextRef> items = list.items;
    std::sort(items.begin(), items.end());
    items.erase(std::unique(items.begin(), items.end()), items.end());
    return items;
}

}  // namespace

Value Field::value(Slot slot) const {
    switch (type) {
        case FieldType::int64: return number(slot);
        case FieldType::float64: return float_of_key(number(slot));
        case FieldType::time: return Time{number(slot)};
        case FieldType::boolean: return truths[1].contains(slot);
        case FieldType::string: return std::string(text(slot)->view());
        case FieldType::strings: break;
    }
    Strings items;
    for (const TextRef& item : list(slot)->items) {
        items.emplace_back(item.view());
    }
    return items;
}

const Field* MetadataState::find(std::string_view name) const noexcept {
    const auto found = std::lower_bound(by_name.begin(), by_name.end(), name,
                                        [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
    return found == by_name.end() || found->first != name ? nullptr : fields[found->second].get();
}

std::size_t MetadataState::require(std::string_view name, FieldType type, Owner owner) {
    const auto found = std::lower_bound(by_name.begin(), by_name.end(), name,
                                        [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
    if (found != by_name.end() && found->first == name) {
        return found->second;
    }
    Ref<Field> field = persistent::make_node<Field>();
    field->owner = owner;
    field->name = name;
    field->type = type;
    fields.push_back(field);
    by_name.emplace(found, std::string(name), fields.size() - 1);
    return fields.size() - 1;
}

void set_value(Field& field, Slot slot, const Value& value, Owner owner) {
    const bool known = field.present.contains(slot);
    switch (field.type) {
        case FieldType::int64:
        case FieldType::float64:
        case FieldType::time: {
            const std::int64_t key = number_key(value);
            if (known && field.number(slot) == key) {
                return;
            }
            if (known) {
                clear_value(field, slot, owner);
            }
            field.numbers.edit(slot, owner) = key;
            index_insert(field.number_index, key, slot, owner);
            break;
        }
        case FieldType::boolean: {
            const bool truth = std::get<bool>(value);
            field.truths[truth ? 0 : 1].erase(slot, owner);
            field.truths[truth ? 1 : 0].insert(slot, owner);
            break;
        }
        case FieldType::string: {
            const auto& text = std::get<std::string>(value);
            if (known && field.text(slot)->view() == text) {
                return;
            }
            if (known) {
                clear_value(field, slot, owner);
            }
            const TextRef shared = intern(field.text_index, text);
            field.texts.edit(slot, owner) = shared;
            index_insert(field.text_index, shared, slot, owner);
            break;
        }
        case FieldType::strings: {
            clear_value(field, slot, owner);
            Ref<TextList> list = persistent::make_node<TextList>();
            for (const std::string& text : std::get<Strings>(value)) {
                const TextRef shared = intern(field.text_index, text);
                list->items.push_back(shared);
                index_insert(field.text_index, shared, slot, owner);
            }
            field.lists.edit(slot, owner) = list;
            break;
        }
    }
    field.present.insert(slot, owner);
}

void clear_value(Field& field, Slot slot, Owner owner) {
    if (!field.present.erase(slot, owner)) {
        return;
    }
    switch (field.type) {
        case FieldType::int64:
        case FieldType::float64:
        case FieldType::time: {
            std::int64_t& number = field.numbers.edit(slot, owner);
            index_erase(field.number_index, number, slot, owner);
            number = 0;
            break;
        }
        case FieldType::boolean:
            field.truths[0].erase(slot, owner);
            field.truths[1].erase(slot, owner);
            break;
        case FieldType::string: {
            TextRef& text = field.texts.edit(slot, owner);
            index_erase(field.text_index, text, slot, owner);
            text = TextRef();
            break;
        }
        case FieldType::strings: {
            Ref<TextList>& list = field.lists.edit(slot, owner);
            for (const TextRef& item : distinct(*list)) {
                index_erase(field.text_index, item, slot, owner);
            }
            list = Ref<TextList>();
            break;
        }
    }
}

}  // namespace detail

namespace {

using detail::Field;
using detail::MetadataState;

std::string quoted(std::string_view text) {
    constexpr std::size_t shown = 40;
    return "'" + std::string(text.substr(0, shown)) + (text.size() > shown ? "...'" : "'");
}

void require_slot(Slot slot) {
    if (slot > slot_max) {
        throw InvalidArgument("slot must be at most " + std::to_string(slot_max) + ", got " + std::to_string(slot));
    }
}

void require_text(std::string_view name, std::string_view text) {
    if (text.size() > Metadata::string_bytes_max) {
        throw InvalidArgument("metadata field " + quoted(name) + ": a string must have at most " +
                              std::to_string(Metadata::string_bytes_max) + " bytes, got " + std::to_string(text.size()) +
                              "; long texts belong into the document");
    }
}

void require_value(std::string_view name, const Value& value) {
    if (const auto* number = std::get_if<double>(&value); number != nullptr && std::isnan(*number)) {
        throw InvalidArgument("metadata field " + quoted(name) + " must not be NaN, which equals nothing; leave it out");
    }
    if (const auto* text = std::get_if<std::string>(&value)) {
        require_text(name, *text);
    }
    if (const auto* items = std::get_if<Strings>(&value)) {
        if (items->size() > Metadata::list_items_max) {
            throw InvalidArgument("metadata field " + quoted(name) + ": a list must have at most " +
                                  std::to_string(Metadata::list_items_max) + " items, got " +
                                  std::to_string(items->size()));
        }
        std::size_t total = 0;
        for (const std::string& text : *items) {
            require_text(name, text);
            total += text.size();
        }
        if (total > Metadata::list_bytes_max) {
            throw InvalidArgument("metadata field " + quoted(name) + ": the strings of a list must have at most " +
                                  std::to_string(Metadata::list_bytes_max) + " bytes, got " + std::to_string(total));
        }
    }
}

void require_distinct_names(const Record& record) {
    constexpr std::size_t few = 16;  // below that looking at all pairs is faster than sorting
    const std::string* twice = nullptr;
    if (record.size() <= few) {
        for (std::size_t i = 1; i < record.size(); ++i) {
            for (std::size_t j = 0; j < i; ++j) {
                twice = record[i].first == record[j].first ? &record[i].first : twice;
            }
        }
    } else {
        std::vector<const std::string*> names;
        names.reserve(record.size());
        for (const auto& entry : record) {
            names.push_back(&entry.first);
        }
        std::sort(names.begin(), names.end(), [](const auto* left, const auto* right) { return *left < *right; });
        const auto found = std::adjacent_find(names.begin(), names.end(),
                                              [](const auto* left, const auto* right) { return *left == *right; });
        twice = found == names.end() ? nullptr : *found;
    }
    if (twice != nullptr) {
        throw InvalidArgument("a record must hold each field once, got " + quoted(*twice) + " twice");
    }
}

// Whole numbers are values of a float field too, where a float holds them: JSON and people write 3 for 3.0.
bool widens(FieldType type, const Value& value) {
    constexpr std::int64_t exact_max = std::int64_t{1} << 53U;
    const auto* whole = std::get_if<std::int64_t>(&value);
    return type == FieldType::float64 && whole != nullptr && *whole >= -exact_max && *whole <= exact_max;
}

// Before anything changes.
void require_record(const MetadataState& state, Slot slot, const Record& record) {
    require_slot(slot);
    require_distinct_names(record);
    std::size_t added = 0;
    for (const auto& [name, value] : record) {
        if (name.empty() || name.size() > Metadata::field_name_bytes_max) {
            throw InvalidArgument("a metadata field's name must have 1 to " +
                                  std::to_string(Metadata::field_name_bytes_max) + " bytes, got " +
                                  std::to_string(name.size()) + ": " + quoted(name));
        }
        const Field* field = state.find(name);
        added += field == nullptr ? 1 : 0;
        if (field != nullptr && field->type != type_of(value) && !widens(field->type, value)) {
            const bool narrow = field->type == FieldType::int64 && type_of(value) == FieldType::float64;
            throw InvalidArgument("metadata field " + quoted(name) + " holds " + std::string(field_type_name(field->type)) +
                                  " values, as its first one was, got " + std::string(field_type_name(type_of(value))) +
                                  " " + describe(value) +
                                  "; a field keeps one type" +
                                  (narrow ? ", a float field takes whole numbers too: its first value decides" : ""));
        }
        require_value(name, value);
    }
    if (state.fields.size() + added > Metadata::fields_max) {
        throw InvalidArgument("there must be at most " + std::to_string(Metadata::fields_max) +
                              " metadata fields, got " + std::to_string(state.fields.size() + added) +
                              "; names that hold data belong into a list of strings");
    }
}

Record record_of(const MetadataState& state, Slot slot) {
    Record record;
    for (const auto& field : state.fields) {
        if (field->present.contains(slot)) {
            record.emplace_back(field->name, field->value(slot));
        }
    }
    return record;
}

}  // namespace

std::string_view field_type_name(FieldType type) noexcept {
    switch (type) {
        case FieldType::int64: return "int";
        case FieldType::float64: return "float";
        case FieldType::boolean: return "bool";
        case FieldType::string: return "string";
        case FieldType::strings: return "list of strings";
        case FieldType::time: return "time";
    }
    return "unknown";
}

FieldType type_of(const Value& value) noexcept { return static_cast<FieldType>(value.index() + 1); }

std::string describe(const Value& value) {
    switch (type_of(value)) {
        case FieldType::int64: return std::to_string(std::get<std::int64_t>(value));
        case FieldType::float64: {
            char text[32];
            const auto end = std::to_chars(text, text + sizeof text, std::get<double>(value)).ptr;
            return {text, end};
        }
        case FieldType::boolean: return std::get<bool>(value) ? "true" : "false";
        case FieldType::string: return quoted(std::get<std::string>(value));
        case FieldType::time: return std::to_string(std::get<Time>(value).microseconds) + " us";
        case FieldType::strings: break;
    }
    constexpr std::size_t shown = 4;
    const auto& items = std::get<Strings>(value);
    std::string text = "[";
    for (std::size_t i = 0; i < std::min(shown, items.size()); ++i) {
        text += (i > 0 ? ", " : "") + quoted(items[i]);
    }
    return text + (items.size() > shown ? ", ...]" : "]");
}

std::size_t MetadataSnapshot::size() const noexcept { return state_->slots.count(); }
bool MetadataSnapshot::contains(Slot slot) const noexcept { return state_->slots.contains(slot); }
std::size_t MetadataSnapshot::slot_end() const noexcept { return state_->slots.end(); }

SlotSet MetadataSnapshot::slots() const {
    SlotSet all(slot_end());
    state_->slots.add_to(all);
    return all;
}

Record MetadataSnapshot::get(Slot slot) const { return record_of(*state_, slot); }

std::optional<Value> MetadataSnapshot::get(Slot slot, std::string_view field) const {
    const Field* found = state_->find(field);
    if (found == nullptr || !found->present.contains(slot)) {
        return std::nullopt;
    }
    return found->value(slot);
}

std::optional<FieldType> MetadataSnapshot::type(std::string_view field) const noexcept {
    const Field* found = state_->find(field);
    return found == nullptr ? std::nullopt : std::optional(found->type);
}

std::vector<std::string> MetadataSnapshot::field_names() const {
    std::vector<std::string> names;
    for (const auto& field : state_->fields) {
        names.push_back(field->name);
    }
    return names;
}

std::vector<FieldStats> MetadataSnapshot::stats() const {
    constexpr auto nothing_before = [](const auto&) { return false; };
    std::vector<FieldStats> all;
    for (const auto& field : state_->fields) {
        FieldStats stats{field->name, field->type, field->present.count(), 0, 0, 0};
        stats.index_bytes = field->present.bytes() + field->truths[0].bytes() + field->truths[1].bytes();
        stats.distinct = field->number_index.size() + field->text_index.size() +
                         (field->truths[0].count() > 0 ? 1U : 0U) + (field->truths[1].count() > 0 ? 1U : 0U);
        field->numbers.for_each_leaf([&stats](std::size_t, const auto& items) { stats.column_bytes += sizeof items; });
        field->texts.for_each_leaf([&stats](std::size_t, const auto& items) { stats.column_bytes += sizeof items; });
        field->lists.for_each_leaf([&stats](std::size_t, const auto& items) {
            stats.column_bytes += sizeof items;
            for (const auto& list : items) {
                stats.column_bytes += list ? sizeof *list + list->items.capacity() * sizeof(void*) : 0;
            }
        });
        field->number_index.for_each(nothing_before, nothing_before, [&stats](std::int64_t, const detail::Posting& posting) {
            stats.index_bytes += sizeof(std::int64_t) + sizeof posting + posting.bytes();
        });
        field->text_index.for_each(nothing_before, nothing_before,
                                   [&stats](const detail::TextRef& text, const detail::Posting& posting) {
                                       stats.column_bytes += sizeof(persistent::Text) + text.view().size();
                                       stats.index_bytes += sizeof text + sizeof posting + posting.bytes();
                                   });
        all.push_back(std::move(stats));
    }
    return all;
}

MetadataBatch::MetadataBatch(std::shared_ptr<detail::MetadataShared> shared) {
    state_ = std::make_shared<MetadataState>(*shared->published.load());
    owner_ = ++shared->last_owner;
    shared_ = std::move(shared);
}

MetadataBatch::~MetadataBatch() {
    if (shared_) {
        shared_->writing.store(false, std::memory_order_release);
    }
}

void MetadataBatch::replace(Slot slot, const Record& record) {
    require_open();
    require_record(*state_, slot, record);
    state_->slots.insert(slot, owner_);
    for (std::size_t place = 0; place < state_->fields.size(); ++place) {
        const Field& field = *state_->fields[place];
        if (field.present.contains(slot) && std::none_of(record.begin(), record.end(), [&field](const auto& entry) {
                return entry.first == field.name;
            })) {
            clear_value(state_->edit(place, owner_), slot, owner_);
        }
    }
    enter(slot, record);
}

void MetadataBatch::merge(Slot slot, const Record& record) {
    require_open();
    require_record(*state_, slot, record);
    state_->slots.insert(slot, owner_);
    enter(slot, record);
}

void MetadataBatch::enter(Slot slot, const Record& record) {
    for (const auto& [name, value] : record) {
        const Field* field = state_->find(name);
        if (field != nullptr && widens(field->type, value)) {
            const std::size_t place = state_->require(name, field->type, owner_);
            set_value(state_->edit(place, owner_), slot, static_cast<double>(std::get<std::int64_t>(value)), owner_);
            continue;
        }
        const std::size_t place = state_->require(name, type_of(value), owner_);
        set_value(state_->edit(place, owner_), slot, value, owner_);
    }
}

void MetadataBatch::unset(Slot slot, std::span<const std::string> fields) {
    require_open();
    require_slot(slot);
    for (const std::string& name : fields) {
        const Field* field = state_->find(name);
        if (field != nullptr && field->present.contains(slot)) {
            clear_value(state_->edit(state_->require(name, field->type, owner_), owner_), slot, owner_);
        }
    }
}

bool MetadataBatch::erase(Slot slot) {
    require_open();
    if (!state_->slots.erase(slot, owner_)) {
        return false;
    }
    for (std::size_t place = 0; place < state_->fields.size(); ++place) {
        if (state_->fields[place]->present.contains(slot)) {
            clear_value(state_->edit(place, owner_), slot, owner_);
        }
    }
    return true;
}

Record MetadataBatch::get(Slot slot) const {
    require_open();
    return record_of(*state_, slot);
}

void MetadataBatch::require_open() const {
    if (!shared_) {
        throw InvalidArgument("a metadata batch ends with its commit; begin another one");
    }
}

void MetadataBatch::commit() {
    require_open();
    // The nodes keep the owner of this batch, which nobody is again: what is published does not change.
    shared_->published.store(std::move(state_));
    shared_->writing.store(false, std::memory_order_release);
    shared_.reset();
}

Metadata::Metadata() : shared_(std::make_shared<detail::MetadataShared>()) {}

MetadataSnapshot Metadata::snapshot() const { return MetadataSnapshot(shared_->published.load()); }

MetadataBatch Metadata::begin() {
    if (shared_->writing.exchange(true, std::memory_order_acquire)) {
        throw InvalidArgument("metadata has one writer at a time, and a batch is open already; commit or drop it first");
    }
    try {
        return MetadataBatch(shared_);
    } catch (...) {
        shared_->writing.store(false, std::memory_order_release);
        throw;
    }
}

void Metadata::replace(Slot slot, const Record& record) {
    MetadataBatch batch = begin();
    batch.replace(slot, record);
    batch.commit();
}

void Metadata::merge(Slot slot, const Record& record) {
    MetadataBatch batch = begin();
    batch.merge(slot, record);
    batch.commit();
}

bool Metadata::erase(Slot slot) {
    MetadataBatch batch = begin();
    const bool known = batch.erase(slot);
    batch.commit();
    return known;
}

}  // namespace sage::vdb
