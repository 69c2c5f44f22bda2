#include "collection/transaction.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "sage/common/codes.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb::detail {
namespace {

using NumberChange = persistent::Tree<IdTraits<std::int64_t>>::Change;
using NameChange = persistent::Tree<IdTraits<TextRef>>::Change;

// Below that a vector has no direction that float32 could hold.
constexpr double cosine_length_min = 1e-30;
// So near to 1 the square of a length is when scaling by it moves no float by half a place.
constexpr double settled_slack = 4e-8;

double sum_of_squares(const float* row, std::size_t dimension) {
    std::array<double, 8> sums{};  // beside each other: one alone would wait for itself
    const std::size_t whole = dimension - dimension % sums.size();
    for (std::size_t i = 0; i < whole; i += sums.size()) {
        for (std::size_t j = 0; j < sums.size(); ++j) {
            sums[j] += double{row[i + j]} * double{row[i + j]};
        }
    }
    for (std::size_t i = whole; i < dimension; ++i) {
        sums[0] += double{row[i]} * double{row[i]};
    }
    return std::accumulate(sums.begin(), sums.end(), 0.0);
}

// Brings a row to length 1, or to 0.
RowLength normalise(float* row, std::size_t dimension) {
    constexpr int turns_max = 4;  // the second one is for what rounding has left, which is much in few dimensions
    RowLength length;
    for (int turn = 0; turn < turns_max; ++turn) {
        const double squares = sum_of_squares(row, dimension);
        if (std::fabs(squares - 1.0) <= settled_slack) {
            return length;
        }
        const double found = std::sqrt(squares);
        const double scale = found < cosine_length_min ? 0.0 : 1.0 / found;
        std::transform(row, row + dimension, row, [scale](float x) { return static_cast<float>(double{x} * scale); });
        length.value = scale == 0.0 ? 0.0 : length.value * found;
        if (scale == 0.0) {
            return length;
        }
    }
    length.settled = std::fabs(sum_of_squares(row, dimension) - 1.0) <= settled_slack;
    return length;
}

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

void prepare_rows(const CollectionOptions& options, std::span<float> rows, std::vector<RowLength>& lengths) {
    const std::size_t dimension = options.dimension;
    lengths.assign(rows.size() / dimension, RowLength());
    if (options.metric == Metric::cosine) {
        for (std::size_t i = 0; i < lengths.size(); ++i) {
            lengths[i] = normalise(rows.data() + i * dimension, dimension);
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

std::vector<Slot> Transaction::insert_rows(std::span<const float> vectors, Kept& kept) {
    const CollectionOptions& options = core_.options_;
    const std::size_t count = vectors.size() / options.dimension;
    std::vector<Slot> slots(count);
    inserted_.reserve(inserted_.size() + count);
    std::generate(slots.begin(), slots.end(), [this] { return core_.take_slot(); });
    inserted_.insert(inserted_.end(), slots.begin(), slots.end());
    if (options.metric == Metric::cosine || options.storage == Storage::float16 ||
        options.storage == Storage::bfloat16) {
        std::vector<float>& rows = core_.rows_room_;
        rows.assign(vectors.begin(), vectors.end());
        prepare_rows(options, rows, kept.lengths);
        tail().insert(slots, rows);
        if (options.storage == Storage::float32) {
            kept.corrections.resize(count);
            for (std::size_t i = 0; i < count; ++i) {
                const std::size_t at = i * options.dimension;
                kept.corrections[i] = correction_of(vectors.subspan(at, options.dimension),
                                                    std::span<const float>(rows).subspan(at, options.dimension),
                                                    kept.lengths[i], owner_);
            }
        }
    } else {
        kept.lengths.assign(count, RowLength());
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

void Transaction::link(const DocumentId& id, std::span<const Slot> all, std::size_t row, std::size_t rows,
                       const Kept& kept) {
    const std::span<const Slot> slots = all.subspan(row, rows);
    if (state_->id_kind == IdKind::none) {
        state_->id_kind = std::holds_alternative<std::int64_t>(id) ? IdKind::integer : IdKind::text;
    }
    for (std::size_t i = 0; i < slots.size(); ++i) {
        state_->slots.edit(slots[i], owner_) = {slots.front(), static_cast<float>(kept.lengths[row + i].value)};
        if (!kept.corrections.empty() && kept.corrections[row + i]) {
            state_->corrections.edit(slots[i], owner_) = kept.corrections[row + i];
        }
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
        if (state_->correction(dead_[i]) != nullptr) {
            state_->corrections.edit(dead_[i], owner_) = Ref<Correction>();
        }
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
    Kept kept;
    const std::vector<Slot> slots = insert_rows(documents.vectors, kept);
    std::size_t row = 0;
    for (std::size_t i = 0; i < count_of(documents.ids); ++i) {
        const DocumentId id = id_at(documents.ids, i);
        const std::size_t rows = rows_of(documents, i);
        if (const Slot old = state_->find(id); old != no_head) {
            erase(old, false);
        }
        link(id, slots, row, rows, kept);
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
    Kept kept;
    std::vector<Slot> slots;
    if (!documents.vectors.empty()) {
        slots = insert_rows(documents.vectors, kept);
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
            link(id, slots, row, rows, kept);
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
