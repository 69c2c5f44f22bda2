// A folder that holds one store: a snapshot, the log of what came after it, and a manifest that says which belong
// together.
//
//   MANIFEST                    replaced in one step; names the generation of the snapshot and the record it reaches
//   snapshot-<generation>.sagesnap
//   log-<first record>.sagelog
//   LOCK
//
// Rules
// - Opening gives the snapshot first, then every record after it. What was durable once is there, nothing is there by
//   halves, whatever the process or the machine did; damage is an error and never a shorter store.
// - checkpoint() writes a new snapshot beside the old one. The old one and the log it needs are removed only when the
//   manifest that names the new one is durable. A checkpoint that fails has changed nothing.
// - One process writes at a time (StoreLocked); any number may read meanwhile. A reader sees what there was when it
//   opened the store.
// - log() may be used by any number of threads, also during a checkpoint; checkpoints wait for each other.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "sage/common/log.hpp"
#include "sage/common/snapshot.hpp"
#include "sage/common/store_lock.hpp"

namespace sage::storage {

inline constexpr std::string_view manifest_file_name = "MANIFEST";

// What the manifest says.
struct Manifest {
    std::uint64_t generation = 0;
    std::uint64_t log_id = 0;
    std::uint64_t covered = 0;                 // the last record that the snapshot holds
    std::optional<SnapshotIdentity> snapshot;  // none before the first checkpoint

    bool operator==(const Manifest&) const = default;
};

[[nodiscard]] FileHeaderBytes encode_manifest(const Application& application, const Manifest& manifest);
// Throws as decode_file_header does.
[[nodiscard]] Manifest decode_manifest(const Application& application, Bytes content, const std::string& path);
[[nodiscard]] std::string snapshot_name(std::uint64_t generation);

// What the owner of the data does with what is found at opening. `load` is called once at most, before `replay`.
struct StoreVisitor {
    std::function<void(std::shared_ptr<const Snapshot> snapshot)> load;
    RecordVisitor replay;
};

struct CheckpointResult {
    std::uint64_t generation;
    std::uint64_t snapshot_bytes;
    std::string left_over;  // why files of the past could not be removed (the next checkpoint tries again); else empty
};

class Store {
public:
    // Opens a store for writing; makes one when the folder holds none.
    [[nodiscard]] static std::unique_ptr<Store> open(FileSystem& files, const std::string& directory,
                                                     const Application& application, const LogOptions& options,
                                                     const StoreVisitor& visitor);

    // Visits a store without changing anything, also while another process writes it. Throws NotFound when there is
    // none.
    static LogRecovery read(FileSystem& files, const std::string& directory, const Application& application,
                            const StoreVisitor& visitor);

    // As read(), and looks at every byte of the snapshot.
    static LogRecovery verify(FileSystem& files, const std::string& directory, const Application& application);

    [[nodiscard]] static bool exists(FileSystem& files, const std::string& directory);

    [[nodiscard]] Log& log();
    [[nodiscard]] const LogRecovery& recovery() const noexcept { return recovery_; }
    [[nodiscard]] Manifest manifest() const;

    // Writes a snapshot by `write` that holds the effects of all records up to `covered` and of none after it, makes it
    // the one that counts, and removes what is not needed any more.
    CheckpointResult checkpoint(std::uint64_t covered, const std::function<void(SnapshotWriter&)>& write);

    void close();  // closes the log and gives the lock back; later calls do nothing

private:
    Store(FileSystem& files, std::string directory, const Application& application);
    void create(const LogOptions& options);
    void load(const LogOptions& options, const StoreVisitor& visitor);
    std::string remove_left_over();

    FileSystem& files_;
    const std::string directory_;
    const Application application_;
    std::unique_ptr<StoreLock> lock_;
    std::unique_ptr<Log> log_;
    LogRecovery recovery_;
    mutable std::mutex mutex_;  // of what follows
    Manifest manifest_;
    std::uint64_t next_generation_ = 1;
    std::string failed_;  // why there can be no more checkpoints; empty while there can
};

}  // namespace sage::storage
