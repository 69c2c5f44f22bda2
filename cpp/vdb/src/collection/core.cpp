#include "collection/core.hpp"

#include <algorithm>

#include "collection/database_core.hpp"
#include "collection/records.hpp"
#include "collection/transaction.hpp"
#include "sage/common/error.hpp"
#include "sage/vdb/filter.hpp"

namespace sage::vdb::detail {
namespace {

// Below that there is no index: some learn from that many, and scanning them takes microseconds.
constexpr std::size_t main_from_least = 1000;
// "auto" scans up to so many values (vectors times dimension): about 0.3 ms.
constexpr std::size_t auto_scan_values = 1'500'000;
// So many vectors wait in the tail before the background thread is asked to index them.
constexpr std::size_t tail_worth_moving = 32;
constexpr std::size_t pending_worth_clearing = 256;
// Memory that a collection keeps for encoding records.
constexpr std::size_t room_bytes_max = std::size_t{16} << 20;
// The first ones are what the index learns from.
constexpr std::size_t first_batch = 10'000;

std::size_t main_from(const CollectionOptions& options) {
    const std::size_t least = main_from_least;
    return options.index == IndexKind::automatic ? std::max(least, auto_scan_values / options.dimension) : least;
}

std::shared_ptr<const CollectionState> empty_state(const Metadata& metadata, const Bm25Index& words) {
    auto state = std::make_shared<CollectionState>();
    state->metadata.emplace(metadata.snapshot());
    state->words.emplace(words.snapshot());
    return state;
}

}  // namespace

CollectionCore::CollectionCore(DatabaseCore& database, std::uint64_t number, std::string name,
                               CollectionOptions options)
    : database_(database),
      number_(number),
      options_(std::move(options)),
      main_from_(main_from(options_)),
      name_(std::move(name)),
      published_(nullptr),
      words_(options_.text) {
    published_.store(empty_state(metadata_, words_));
}

CollectionCore::~CollectionCore() = default;

std::string CollectionCore::name() const {
    const std::lock_guard<std::mutex> lock(name_mutex_);
    return name_;
}

void CollectionCore::set_name(std::string name) {
    const std::lock_guard<std::mutex> lock(name_mutex_);
    name_ = std::move(name);
}

void CollectionCore::require_live() const {
    if (dropped_.load(std::memory_order_acquire)) {
        throw NotFound("the collection '" + name() + "' was dropped, it cannot be changed any more");
    }
}

void CollectionCore::write(Write kind, const Documents& documents) {
    database_.require_writable();
    std::uint64_t sequence = 0;
    {
        const std::shared_lock<FairSharedMutex> gate(database_.gate());
        const std::lock_guard<std::mutex> lock(write_mutex_);
        require_live();
        validate(options_, *published_.load(), kind, documents);
        if (count_of(documents.ids) == 0) {
            return;
        }
        Transaction transaction(*this);
        if (kind == Write::update) {
            transaction.update(documents);
        } else {
            transaction.put(documents);
        }
        room_ = encode_documents(kind == Write::update ? Operation::update : Operation::put, number_, documents,
                                 std::move(room_));
        sequence = database_.append(room_);
        if (room_.capacity() + rows_room_.capacity() * sizeof(float) > room_bytes_max) {
            room_ = std::vector<std::byte>();
            rows_room_ = std::vector<float>();
        }
        transaction.commit();
    }
    database_.notify(*this);
    database_.settle(sequence);
}

std::size_t CollectionCore::remove(const IdSpan& ids) {
    database_.require_writable();
    std::uint64_t sequence = 0;
    std::size_t count = 0;
    {
        const std::shared_lock<FairSharedMutex> gate(database_.gate());
        const std::lock_guard<std::mutex> lock(write_mutex_);
        require_live();
        validate_ids(*published_.load(), ids, false);
        Transaction transaction(*this);
        count = transaction.remove(ids);
        if (count == 0) {
            return 0;
        }
        sequence = database_.append(encode_removal(number_, ids));
        transaction.commit();
    }
    database_.notify(*this);
    database_.settle(sequence);
    return count;
}

std::size_t CollectionCore::remove(const Filter& filter) {
    database_.require_writable();
    std::uint64_t sequence = 0;
    std::size_t count = 0;
    {
        const std::shared_lock<FairSharedMutex> gate(database_.gate());
        const std::lock_guard<std::mutex> lock(write_mutex_);
        require_live();
        const auto state = published_.load();
        IdList ids = state->empty_ids();
        BoundFilter(*state->metadata, filter).evaluate().for_each([&](Slot head) { state->append_id(head, ids); });
        if (count_of(ids) == 0) {
            return 0;
        }
        Transaction transaction(*this);
        count = transaction.remove(span_of(ids));
        sequence = database_.append(encode_removal(number_, span_of(ids)));
        transaction.commit();
    }
    database_.notify(*this);
    database_.settle(sequence);
    return count;
}

void CollectionCore::replay(std::uint8_t operation, std::span<const std::byte> payload, const std::string& place) {
    const std::lock_guard<std::mutex> lock(write_mutex_);
    if (!replaying_) {
        replaying_ = std::make_unique<Transaction>(*this);
    }
    StoredReader in(payload, place.c_str());
    try {
        if (operation == static_cast<std::uint8_t>(Operation::remove)) {
            const IdList ids = decode_ids(in);
            in.finish();
            validate_ids(replaying_->state(), span_of(ids), false);
            replaying_->remove(span_of(ids));
            return;
        }
        const OwnedDocuments documents = decode_documents(in);
        const bool update = operation == static_cast<std::uint8_t>(Operation::update);
        validate(options_, replaying_->state(), update ? Write::update : Write::upsert, documents.view());
        if (update) {
            replaying_->update(documents.view());
        } else {
            replaying_->put(documents.view());
        }
    } catch (const InvalidArgument& error) {
        in.fail(std::string("what nobody can have written: ") + error.what());
    } catch (const NotFound& error) {
        in.fail(std::string("what nobody can have written: ") + error.what());
    }
}

void CollectionCore::finish_replay() {
    const std::lock_guard<std::mutex> lock(write_mutex_);
    if (replaying_) {
        replaying_->commit();
        replaying_.reset();
    }
}

void CollectionCore::publish(std::shared_ptr<const CollectionState> next) { published_.store(std::move(next)); }

Slot CollectionCore::take_slot() {
    if (!free_.empty()) {
        const Slot slot = free_.back();
        free_.pop_back();
        return slot;
    }
    if (holders_.size() >= slot_max) {
        throw InvalidArgument("the collection has no free slot left; compact() it");
    }
    holders_.push_back(0);
    return static_cast<Slot>(holders_.size() - 1);
}

void CollectionCore::retire(std::vector<Slot> slots, bool tail_only) {
    pending_count_.fetch_add(slots.size(), std::memory_order_relaxed);
    pending_.push_back({epochs_.ticket(), std::move(slots), tail_only});
}

void CollectionCore::note_free(std::span<const Slot> slots, Holder holder) {
    for (const Slot slot : slots) {
        holders_[slot] &= static_cast<std::uint8_t>(~holder);
        if (holders_[slot] == 0) {
            free_.push_back(slot);
        }
    }
}

void CollectionCore::process_pending() {
    const auto parts = published_.load()->parts;
    while (!pending_.empty() && epochs_.passed(pending_.front().ticket)) {
        const Pending& first = pending_.front();
        if (parts) {
            parts->tail->remove(first.slots);
        }
        if (!first.tail_only) {
            for (const Slot slot : first.slots) {
                if ((holders_[slot] & in_main) != 0) {
                    main_removals_.push_back(slot);
                    pending_count_.fetch_add(1, std::memory_order_relaxed);
                }
            }
        }
        note_free(first.slots, in_tail);
        pending_count_.fetch_sub(first.slots.size(), std::memory_order_relaxed);
        pending_.pop_front();
    }
}

bool CollectionCore::wants_main(const CollectionState& state) const {
    return state.parts && (state.parts->main || state.vectors >= main_from_);
}

bool CollectionCore::wants_maintenance() const {
    const auto state = published_.load();
    return (wants_main(*state) && state->parts->tail->size() >= tail_worth_moving) ||
           pending() >= pending_worth_clearing;
}

bool CollectionCore::maintain(std::size_t count, std::size_t threads) {
    const std::lock_guard<std::mutex> main_lock(main_mutex_);
    std::vector<Slot> removals;
    std::vector<Slot> moving;
    std::shared_ptr<Index> main;
    std::shared_ptr<FlatTail> tail;
    std::vector<float> rows;
    std::optional<View> keep;  // what is being moved stays in the tail
    {
        const std::lock_guard<std::mutex> lock(write_mutex_);
        process_pending();
        keep.emplace(epochs_, published_);
        const CollectionState& state = **keep;
        if (!wants_main(state)) {
            return false;
        }
        tail = state.parts->tail;
        main = state.parts->main;
        if (!main) {
            count = std::max(count, first_batch);
        }
        removals.swap(main_removals_);
        for (const Slot slot : tail->first(count + 2 * pending())) {
            if (moving.size() < count && state.info(slot).head != no_head && (holders_[slot] & in_main) == 0) {
                holders_[slot] |= in_main;
                moving.push_back(slot);
            }
        }
    }
    const bool new_main = !main;
    std::vector<Slot> freed;
    try {
        if (new_main) {
            main = make_main(options_);
        }
        main->remove(removals);
        rows.resize(moving.size() * options_.dimension);
        for (std::size_t i = 0; i < moving.size(); ++i) {
            std::copy_n(tail->row(moving[i]), options_.dimension, rows.data() + i * options_.dimension);
        }
        if (!moving.empty()) {
            main->insert(moving, rows, threads);
        }
        freed = main->take_free();
    } catch (...) {
        const std::lock_guard<std::mutex> lock(write_mutex_);
        note_free(moving, in_main);
        main_removals_.insert(main_removals_.end(), removals.begin(), removals.end());
        throw;
    }
    const std::lock_guard<std::mutex> lock(write_mutex_);
    keep.reset();
    pending_count_.fetch_sub(removals.size(), std::memory_order_relaxed);
    note_free(freed, in_main);
    if (new_main) {
        auto state = std::make_shared<CollectionState>(*published_.load());
        auto parts = std::make_shared<Parts>(*state->parts);
        parts->main = main;
        state->parts = std::move(parts);
        publish(std::move(state));
    }
    const bool more = moving.size() >= count;
    // Those that were removed meanwhile leave the tail by that.
    const auto state = published_.load();
    std::erase_if(moving, [&state](Slot slot) { return state->info(slot).head == no_head; });
    if (!moving.empty()) {
        retire(std::move(moving), true);
    }
    process_pending();
    return more;
}

void CollectionCore::compact(std::size_t threads) {
    constexpr std::size_t batch = 20'000;
    while (maintain(batch, threads)) {
    }
    const std::lock_guard<std::mutex> main_lock(main_mutex_);
    const auto parts = published_.load()->parts;
    if (parts && parts->main) {
        parts->main->consolidate(threads);
        const std::vector<Slot> freed = parts->main->take_free();
        const std::lock_guard<std::mutex> lock(write_mutex_);
        note_free(freed, in_main);
        process_pending();
    }
}

std::string CollectionCore::index_reason(const CollectionState& state) const {
    const std::string from = std::to_string(main_from_);
    if (!state.parts || !state.parts->main) {
        return "so far all vectors are looked at one by one, which is exact and takes less than 0.3 ms; " +
               std::string(index_kind_name(main_kind(options_))) + " takes over from " + from + " vectors on";
    }
    std::string reason = state.parts->main->explain();
    if (options_.index == IndexKind::automatic) {
        reason += "; chosen because there were " + from + " vectors, and up to so many are looked at in less than 0.3 ms";
    }
    return reason;
}

}  // namespace sage::vdb::detail
