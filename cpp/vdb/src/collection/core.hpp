// What is behind a Collection. Internal.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "collection/state.hpp"
#include "persistent/ref.hpp"
#include "sage/common/epoch.hpp"
#include "sage/common/snapshot.hpp"
#include "sage/vdb/collection.hpp"

namespace sage::vdb::detail {

class DatabaseCore;
class Transaction;

// A version, and the guard that keeps its vectors where they are.
class View {
public:
    View(const Epochs& epochs, const persistent::Published<CollectionState>& published)
        : guard_(epochs.enter()), state_(published.load()) {}
    const CollectionState& operator*() const noexcept { return *state_; }
    const CollectionState* operator->() const noexcept { return state_.get(); }

private:
    Epochs::Guard guard_;
    std::shared_ptr<const CollectionState> state_;
};

// Locks, taken in this order: main_mutex_ (who changes the index; a checkpoint, while it writes it), the database's gate
// (shared; a checkpoint takes it alone for the moment that it writes down), write_mutex_ (who changes anything else).
// Readers take none of them.
//
// A slot that no version to come refers to goes through these stations: `pending_` until no reader has a version in
// which it is alive; removal from tail and index; free once both have said so (holders_).
class CollectionCore : public std::enable_shared_from_this<CollectionCore> {
public:
    CollectionCore(DatabaseCore& database, std::uint64_t number, std::string name, CollectionOptions options);
    ~CollectionCore();

    [[nodiscard]] View view() const { return {epochs_, published_}; }
    [[nodiscard]] const CollectionOptions& options() const noexcept { return options_; }
    [[nodiscard]] std::uint64_t number() const noexcept { return number_; }
    [[nodiscard]] std::string name() const;
    void set_name(std::string name);
    [[nodiscard]] DatabaseCore& database() const noexcept { return database_; }

    enum class Write { add, upsert, update };
    void write(Write kind, const Documents& documents);
    std::size_t remove(const IdSpan& ids);
    std::size_t remove(const Filter& filter);
    void mark_dropped() { dropped_.store(true, std::memory_order_release); }

    // Feeds the index with up to `count` vectors of the tail; whether there may be more of them. Any thread.
    bool maintain(std::size_t count, std::size_t threads);
    void compact(std::size_t threads);
    [[nodiscard]] bool wants_maintenance() const;
    [[nodiscard]] std::string index_reason(const CollectionState& state) const;
    [[nodiscard]] std::size_t pending() const noexcept { return pending_count_.load(std::memory_order_relaxed); }

    // What save() writes while writers and readers go on; the index stands still as long as it lives.
    struct Frozen {
        explicit Frozen(std::shared_ptr<CollectionCore> of) : core(std::move(of)), index(core->main_mutex_) {}
        // Does not wait: index.owns_lock() says whether it has it.
        Frozen(std::shared_ptr<CollectionCore> of, std::try_to_lock_t now)
            : core(std::move(of)), index(core->main_mutex_, now) {}

        std::shared_ptr<CollectionCore> core;
        std::unique_lock<std::mutex> index;  // main_mutex_
        std::optional<View> view;            // none until freeze()
        std::vector<std::uint8_t> holders;
    };
    // With the database's gate held alone, so that the log's last record is the last one in it.
    void freeze(Frozen& frozen) const;
    void save(storage::SnapshotWriter& writer, const Frozen& frozen) const;
    // Before anybody else knows of it; from the sections of collection `number`.
    void load(const storage::Snapshot& snapshot, std::uint64_t number);
    // Replay: changes of one transaction that finish_replay() publishes.
    void replay(std::uint8_t operation, std::span<const std::byte> payload, const std::string& place);
    void finish_replay();

    std::atomic<bool> queued{false};  // for the background thread

private:
    friend class Transaction;
    enum Holder : std::uint8_t { in_tail = 1, in_main = 2 };
    struct Pending {
        Epochs::Ticket ticket;
        std::vector<Slot> slots;
        bool tail_only;  // moved into the index
    };

    [[nodiscard]] bool wants_main(const CollectionState& state) const;
    void require_live() const;
    // All below with write_mutex_ held.
    void publish(std::shared_ptr<const CollectionState> next);
    void retire(std::vector<Slot> slots, bool tail_only);
    void process_pending();
    void note_free(std::span<const Slot> slots, Holder holder);
    [[nodiscard]] Slot take_slot();
    void load_state(std::span<const std::byte> bytes);
    void load_exact(std::span<const std::byte> bytes, CollectionState& state);
    void load_tail(const storage::Snapshot& snapshot, std::uint64_t number, const CollectionState& state, FlatTail& tail);
    void settle_slots(const CollectionState& state);
    [[nodiscard]] std::vector<std::byte> save_state(const Frozen& frozen) const;
    void save_tail(storage::SnapshotWriter& writer, const Frozen& frozen) const;

    DatabaseCore& database_;
    const std::uint64_t number_;
    const CollectionOptions options_;
    const std::size_t main_from_;  // vectors from which on there is an index
    mutable std::mutex name_mutex_;
    std::string name_;
    std::atomic<bool> dropped_{false};

    Epochs epochs_;
    persistent::Published<CollectionState> published_;

    std::mutex main_mutex_;
    mutable std::mutex write_mutex_;
    // Guarded by write_mutex_.
    Metadata metadata_;
    Bm25Index words_;
    Owner last_owner_ = persistent::nobody;
    std::vector<std::uint8_t> holders_;  // by slot
    std::vector<Slot> free_;
    std::deque<Pending> pending_;
    std::vector<Slot> main_removals_;  // passed, waiting for main_mutex_
    std::atomic<std::size_t> pending_count_{0};
    std::unique_ptr<Transaction> replaying_;
    std::vector<std::byte> room_;   // of the last record, for the next one
    std::vector<float> rows_room_;  // of the last rows that were scaled or rounded
};

}  // namespace sage::vdb::detail
