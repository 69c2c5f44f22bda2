#include "collection/transaction.hpp"

#include <algorithm>
#include <cmath>

#include "sage/common/codes.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb::detail {
namespace {

using NumberChange = persistent::Tree<IdTraits<std::int64_t>>::Change;
using NameChange = persistent::Tree<IdTraits<TextRef>>::Change;

// Below that a vector has no direction that float32 could hold.
constexpr float cosine_length_min = 1e-30F;

const Record empty_record;

// Names the document in what the metadata has to say.
template <class Work>
void about(const DocumentId& id, Work work) {
    try {
        work();
    } catch (const InvalidArgument& error) {
        throw InvalidArgument("document " + describe(id) + ": " + error.what());
    }
}

std::uint32_t rows_of(const Documents& documents, std::size_t place) {
    return documents.vector_counts.empty() ? 1 : documents.vector_counts[place];
}

}  // namespace

void prepare_rows(const CollectionOptions& options, std::span<float> rows, std::vector<float>& lengths) {
    const std::size_t dimension = options.dimension;
    lengths.assign(rows.size() / dimension, 1.0F);
    if (options.metric == Metric::cosine) {
        const auto& kernels = distance::kernels();
        for (std::size_t i = 0; i < lengths.size(); ++i) {
            float* row = rows.data() + i * dimension;
            const float length = std::sqrt(kernels.inner_product(row, row, dimension));
            lengths[i] = length > cosine_length_min ? length : 0.0F;
            const float scale = lengths[i] > 0.0F ? 1.0F / length : 0.0F;
            // 1 / length overflows for lengths that are nearly nothing.
            const bool tiny = lengths[i] > 0.0F && !std::isfinite(scale);
            std::transform(row, row + dimension, row, [&](float value) { return tiny ? value / length : value * scale; });
        }
    }
    if (options.storage != Storage::float16 && options.storage != Storage::bfloat16) {
        return;
    }
    const auto& codes = distance::code_kernels();
    std::vector<std::uint16_t> narrow(dimension);
    for (std::size_t i = 0; i < lengths.size(); ++i) {
        float* row = rows.data() + i * dimension;
        if (options.storage == Storage::float16) {
            codes.to_float16(row, dimension, narrow.data());
            codes.from_float16(narrow.data(), dimension, row);
        } else {
            codes.to_bfloat16(row, dimension, narrow.data());
            codes.from_bfloat16(narrow.data(), dimension, row);
        }
    }
}

Transaction::Transaction(CollectionCore& core)
    : core_(core),
      owner_(++core.last_owner_),
      state_(std::make_shared<CollectionState>(*core.published_.load())) {}

Transaction::~Transaction() {
    if (state_ && !inserted_.empty()) {
        try {
            core_.retire(std::move(inserted_), false);
            core_.process_pending();
        } catch (const std::bad_alloc&) {  // the slots are lost until the database is opened again, nothing else is
        }
    }
}

MetadataBatch& Transaction::metadata() {
    if (!metadata_) {
        metadata_.emplace(core_.metadata_.begin());
    }
    return *metadata_;
}

Bm25Batch& Transaction::words() {
    if (!words_) {
        words_.emplace(core_.words_.begin());
    }
    return *words_;
}

FlatTail& Transaction::tail() {
    if (!state_->parts) {
        auto parts = std::make_shared<Parts>();
        parts->tail = std::make_shared<FlatTail>(core_.options_.dimension, core_.options_.metric);
        state_->parts = std::move(parts);
    }
    return *state_->parts->tail;
}

std::vector<Slot> Transaction::insert_rows(std::span<const float> vectors, std::vector<float>& lengths) {
    const CollectionOptions& options = core_.options_;
    const std::size_t count = vectors.size() / options.dimension;
    std::vector<Slot> slots(count);
    inserted_.reserve(inserted_.size() + count);
    std::generate(slots.begin(), slots.end(), [this] { return core_.take_slot(); });
    inserted_.insert(inserted_.end(), slots.begin(), slots.end());
    if (options.metric == Metric::cosine || options.storage == Storage::float16 ||
        options.storage == Storage::bfloat16) {
        std::vector<float> rows(vectors.begin(), vectors.end());
        prepare_rows(options, rows, lengths);
        tail().insert(slots, rows);
    } else {
        lengths.assign(count, 1.0F);
        tail().insert(slots, vectors);
    }
    for (const Slot slot : slots) {
        core_.holders_[slot] |= CollectionCore::in_tail;
    }
    return slots;
}

void Transaction::set_id(const DocumentId& id, Slot head) {
    if (const auto* number = std::get_if<std::int64_t>(&id)) {
        state_->numbers.change(*number, owner_, [head](Slot& value) {
            value = head;
            return NumberChange{{}, true};
        });
        state_->number_of.edit(head, owner_) = *number;
        return;
    }
    const std::string_view text = std::get<std::string>(id);
    const TextRef* known = state_->names.find_key(text);
    const TextRef shared = known != nullptr ? *known : TextRef(text);
    state_->names.change(shared, owner_, [head](Slot& value) {
        value = head;
        return NameChange{{}, true};
    });
    state_->name_of.edit(head, owner_) = shared;
}

void Transaction::forget_id(Slot head) {
    if (state_->id_kind == IdKind::text) {
        const TextRef name = *state_->name_of.find(head);
        state_->names.change(name, owner_, [](Slot&) { return NameChange{{}, false}; });
    } else {
        const std::int64_t number = *state_->number_of.find(head);
        state_->numbers.change(number, owner_, [](Slot&) { return NumberChange{{}, false}; });
    }
}

void Transaction::set_text(Slot head, std::string_view text) {
    TextRef& place = state_->texts.edit(head, owner_);
    state_->text_count += place ? 0 : 1;
    place = TextRef(text);
    words().replace(head, text);
}

void Transaction::link(const DocumentId& id, std::span<const Slot> slots, std::span<const float> lengths) {
    if (state_->id_kind == IdKind::none) {
        state_->id_kind = std::holds_alternative<std::int64_t>(id) ? IdKind::integer : IdKind::text;
    }
    for (std::size_t i = 0; i < slots.size(); ++i) {
        state_->slots.edit(slots[i], owner_) = {slots.front(), lengths[i]};
    }
    if (slots.size() > 1) {
        Ref<SlotList> list = persistent::make_node<SlotList>(owner_);
        list->slots.assign(slots.begin(), slots.end());
        state_->lists.edit(slots.front(), owner_) = list;
        ++state_->multiple;
    }
    ++state_->documents;
    state_->vectors += slots.size();
    set_id(id, slots.front());
}

void Transaction::erase(Slot head, bool with_id) {
    std::size_t count = 0;
    state_->for_each_slot(head, [this, &count](Slot slot) {
        dead_.push_back(slot);
        ++count;
    });
    for (std::size_t i = dead_.size() - count; i < dead_.size(); ++i) {
        state_->slots.edit(dead_[i], owner_) = SlotInfo{};
    }
    if (count > 1) {
        state_->lists.edit(head, owner_) = Ref<SlotList>();
        --state_->multiple;
    }
    --state_->documents;
    state_->vectors -= count;
    if (state_->text(head) != nullptr) {
        state_->texts.edit(head, owner_) = TextRef();
        --state_->text_count;
        words().erase(head);
    }
    metadata().erase(head);
    if (with_id) {
        forget_id(head);
    }
    if (state_->id_kind == IdKind::text) {
        state_->name_of.edit(head, owner_) = TextRef();
    }
}

void Transaction::put(const Documents& documents) {
    std::vector<float> lengths;
    const std::vector<Slot> slots = insert_rows(documents.vectors, lengths);
    std::size_t row = 0;
    for (std::size_t i = 0; i < count_of(documents.ids); ++i) {
        const DocumentId id = id_at(documents.ids, i);
        const std::size_t rows = rows_of(documents, i);
        if (const Slot old = state_->find(id); old != no_head) {
            erase(old, false);
        }
        link(id, std::span(slots).subspan(row, rows), std::span(lengths).subspan(row, rows));
        const Slot head = slots[row];
        const Record& record = documents.metadata.empty() ? empty_record : documents.metadata[i];
        about(id, [&] { metadata().replace(head, record); });
        if (!documents.texts.empty() && documents.texts[i]) {
            about(id, [&] { set_text(head, *documents.texts[i]); });
        }
        row += rows;
    }
}

void Transaction::update(const Documents& documents) {
    std::vector<float> lengths;
    std::vector<Slot> slots;
    if (!documents.vectors.empty()) {
        slots = insert_rows(documents.vectors, lengths);
    }
    std::size_t row = 0;
    for (std::size_t i = 0; i < count_of(documents.ids); ++i) {
        const DocumentId id = id_at(documents.ids, i);
        Slot head = state_->find(id);
        if (!slots.empty()) {
            const std::size_t rows = rows_of(documents, i);
            const Record record = metadata().get(head);
            const TextRef text = state_->text(head) != nullptr ? *state_->text(head) : TextRef();
            erase(head, false);
            link(id, std::span(slots).subspan(row, rows), std::span(lengths).subspan(row, rows));
            head = slots[row];
            metadata().replace(head, record);
            if (text) {
                set_text(head, text.view());
            }
            row += rows;
        }
        if (!documents.metadata.empty()) {
            about(id, [&] { metadata().merge(head, documents.metadata[i]); });
        }
        if (!documents.texts.empty() && documents.texts[i]) {
            about(id, [&] { set_text(head, *documents.texts[i]); });
        }
    }
}

std::size_t Transaction::remove(const IdSpan& ids) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < count_of(ids); ++i) {
        const Slot head = state_->find(id_at(ids, i));
        if (head != no_head) {
            erase(head, true);
            ++count;
        }
    }
    return count;
}

void Transaction::commit() {
    if (metadata_) {
        metadata_->commit();
        state_->metadata.emplace(core_.metadata_.snapshot());
    }
    if (words_) {
        words_->commit();
        state_->words.emplace(core_.words_.snapshot());
    }
    core_.publish(std::move(state_));
    inserted_.clear();
    if (!dead_.empty()) {
        core_.retire(std::move(dead_), false);
    }
    core_.process_pending();
}

}  // namespace sage::vdb::detail
