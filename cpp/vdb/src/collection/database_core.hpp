// What is behind a Database. Internal.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

#include "collection/core.hpp"
#include "sage/common/fair_shared_mutex.hpp"
#include "sage/common/process_guard.hpp"
#include "sage/common/store.hpp"
#include "sage/vdb/database.hpp"

namespace sage::vdb::detail {

inline constexpr storage::Application vdb_application{{'v', 'd', 'b', ' '}, 1};

class DatabaseCore {
public:
    DatabaseCore(std::string path, const DatabaseOptions& options);
    DatabaseCore(const DatabaseCore&) = delete;
    DatabaseCore& operator=(const DatabaseCore&) = delete;
    ~DatabaseCore();

    // Loads what is there and starts the background thread; `path` is empty in memory.
    void start();
    void load_only();  // for verify(): without a lock, and without a thread

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] const DatabaseOptions& options() const noexcept { return options_; }
    [[nodiscard]] std::size_t index_threads() const noexcept { return options_.index_threads; }

    // A writer holds it shared from before its record is appended until the change is visible.
    [[nodiscard]] FairSharedMutex& gate() noexcept { return gate_; }
    void require_writable() const;
    // With the gate held. Returns the record's number, 0 in memory.
    std::uint64_t append(std::span<const std::byte> record);
    void settle(std::uint64_t sequence);
    // There may be work for the background thread.
    void notify(CollectionCore& collection);
    [[nodiscard]] bool has_background() const noexcept { return worker_ != nullptr; }

    std::shared_ptr<CollectionCore> create(std::string_view name, const CollectionOptions& options);
    [[nodiscard]] std::shared_ptr<CollectionCore> find(std::string_view name) const;  // nullptr for none
    [[nodiscard]] std::shared_ptr<CollectionCore> require(std::string_view name) const;
    [[nodiscard]] std::vector<std::string> names() const;
    void drop(std::string_view name);
    void rename(std::string_view from, std::string_view to);

    void checkpoint();
    void sync();
    // Of one collection only, if it is named.
    void backup(const std::string& path, const CollectionCore* only);
    void restore(const std::string& path);
    [[nodiscard]] DatabaseStats stats() const;
    [[nodiscard]] VerifyReport report() const;
    void close();

private:
    // On the heap, because a forked child must leave it behind.
    struct Worker {
        std::mutex mutex;
        std::condition_variable changed;
        std::deque<std::weak_ptr<CollectionCore>> queue;
        bool stop = false;
        bool wants_checkpoint = false;
        std::string error;
        std::thread thread;
    };

    // Everything as of one moment, to be written while others go on.
    struct Frozen {
        std::vector<std::byte> catalog;
        std::deque<CollectionCore::Frozen> collections;
        std::uint64_t covered = 0;    // the last record of the log that is in it
        std::uint64_t log_bytes = 0;  // then
    };
    using Collections = std::map<std::uint64_t, std::shared_ptr<CollectionCore>>;
    using Found = std::function<void(std::uint64_t number, std::string name, const CollectionOptions& options)>;

    [[nodiscard]] storage::FileSystem& files() const;
    [[nodiscard]] storage::StoreVisitor visitor();
    void load(const std::shared_ptr<const storage::Snapshot>& snapshot);
    void replay(std::uint64_t sequence, std::span<const std::byte> payload);
    void finish_replay();
    void add(std::shared_ptr<CollectionCore> collection);
    void require_free_name(std::string_view name) const;
    std::uint64_t read_catalog(const storage::Snapshot& snapshot, const Found& found) const;
    [[nodiscard]] std::vector<std::byte> catalog_of(const Collections& collections, std::uint64_t next_number) const;
    void freeze(Frozen& frozen, const CollectionCore* only);
    [[nodiscard]] Collections wanted_collections(const CollectionCore* only) const;
    static void save(storage::SnapshotWriter& writer, const Frozen& frozen);
    void write_checkpoint(const Frozen& frozen);
    [[nodiscard]] Collections read_backup(const std::string& path);
    [[nodiscard]] bool checkpoint_is_due() const;
    void run_worker();
    void stop_worker();

    const std::string path_;
    const DatabaseOptions options_;
    const storage::ProcessGuard process_;
    FairSharedMutex gate_;
    FairSharedMutex closing_;  // shared by those who wait for the log; taken after the gate
    std::mutex close_mutex_;
    std::mutex checkpoint_mutex_;  // one checkpoint, backup or restoring at a time; taken before all other locks
    std::unique_ptr<storage::Store> store_;  // nullptr: in memory, read only, or closed
    std::atomic<bool> closed_{false};
    std::atomic<std::uint64_t> log_bytes_{0};
    std::atomic<std::uint64_t> snapshot_bytes_{0};
    std::atomic<std::uint64_t> generation_{0};
    storage::LogRecovery recovery_;
    mutable std::mutex mutex_;  // of the names and what they stand for
    std::map<std::string, std::shared_ptr<CollectionCore>, std::less<>> by_name_;
    std::map<std::uint64_t, std::shared_ptr<CollectionCore>> by_number_;
    std::uint64_t next_number_ = 1;
    std::unique_ptr<Worker> worker_;
};

// Names of `all` that resemble `wanted`, for messages: "; did you mean 'docs'?", or nothing.
[[nodiscard]] std::string near_names(std::string_view wanted, const std::vector<std::string>& all);

}  // namespace sage::vdb::detail
