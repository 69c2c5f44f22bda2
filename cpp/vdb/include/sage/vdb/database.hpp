// Named collections in memory, kept in a folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sage/common/store.hpp"
#include "sage/vdb/collection.hpp"

namespace sage::vdb {

namespace detail {
class DatabaseCore;
}  // namespace detail

struct DatabaseOptions {
    // When a write is acknowledged: `each` write synced by itself, `group`: writers that wait share one sync, `none`: at
    // once; a crash of the machine may take the last seconds back, never half a write.
    storage::SyncPolicy sync = storage::SyncPolicy::group;
    bool read_only = false;
    // A checkpoint is made when the log has grown by this much, and by half of the last snapshot. 0: only when asked
    // for and at close.
    std::uint64_t checkpoint_log_bytes = std::uint64_t{256} << 20;
    bool checkpoint_at_close = true;
    // A thread that feeds the indexes and makes checkpoints. Without it compact() and checkpoint() do that.
    bool background = true;
    std::size_t index_threads = 1;  // that feed an index
    storage::FileSystem* files = nullptr;  // nullptr: the machine's own
};

struct DatabaseStats {
    std::string path;  // empty: in memory
    std::size_t collections = 0;
    std::uint64_t log_bytes = 0;       // since the last checkpoint
    std::uint64_t snapshot_bytes = 0;  // of the last checkpoint
    std::uint64_t generation = 0;
    std::uint64_t recovered_records = 0;  // replayed at opening
    std::string recovered_dropped;        // why an unfinished end of the log was dropped; empty: there was none
    std::string background_error;         // why the last checkpoint of the background thread failed; empty: it did not
};

// What is in a store that was looked at without opening it.
struct VerifyReport {
    std::size_t collections = 0;
    std::size_t documents = 0;
    std::uint64_t records = 0;  // of the log
    std::string dropped;        // the unfinished end of the log, if there is one
};

// A handle; cheap to copy. The database is closed by close(), or when the last handle of it and of its collections goes.
//
// One process writes to a folder at a time (StoreLocked names the other one); any number may open it read_only
// meanwhile and see what there was when they opened it. In a forked child reading goes on, writing is refused.
//
// Threads: any number.
class Database {
public:
    static constexpr std::size_t name_bytes_max = 255;
    static constexpr std::size_t collections_max = 100'000;

    // Opens a folder, or makes it. Throws Corruption, UnsupportedFormat, IoError, StoreLocked; NotFound when it is to be
    // read only and is not there.
    [[nodiscard]] static Database open(const std::string& path, const DatabaseOptions& options = {});
    [[nodiscard]] static Database in_memory(const DatabaseOptions& options = {});
    // Looks at every byte, and loads everything. Throws Corruption, UnsupportedFormat, NotFound.
    static VerifyReport verify(const std::string& path, storage::FileSystem* files = nullptr);

    // Names have 1 to name_bytes_max bytes. Throws InvalidArgument when there is one of that name.
    Collection create_collection(std::string_view name, const CollectionOptions& options);
    // Throws NotFound, with names that are near.
    [[nodiscard]] Collection collection(std::string_view name) const;
    [[nodiscard]] bool has_collection(std::string_view name) const;
    [[nodiscard]] std::vector<std::string> collection_names() const;  // sorted
    void drop_collection(std::string_view name);
    void rename_collection(std::string_view from, std::string_view to);

    // Writes all of it into a new snapshot and begins a new log. Readers and writers go on.
    void checkpoint();
    // Waits until everything acknowledged, and everything else, is durable.
    void sync();
    // A copy as of one moment, in a folder that holds no store; the copy can be opened when it returns.
    void backup(const std::string& path) const;
    // Puts the collections of a backup in the place of all that there are, in one step: readers see the ones or the
    // others, also after a crash. Handles of collections from before read on, and refuse changes. A failure changes
    // nothing. Writers wait meanwhile.
    void restore(const std::string& path);
    [[nodiscard]] DatabaseStats stats() const;
    // Makes a checkpoint (checkpoint_at_close), gives the folder back. Later changes are refused; later calls do nothing.
    void close();

private:
    explicit Database(std::shared_ptr<detail::DatabaseCore> core);
    std::shared_ptr<detail::DatabaseCore> core_;
};

}  // namespace sage::vdb
