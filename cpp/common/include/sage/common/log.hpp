// An append-only log of checksummed records.
//
// Rules
// - append() gives a record the next sequence number (the first is 1) and writes it; it is durable when sync() with
//   that number returns, or append() itself under SyncPolicy::each. What was durable once is there after any crash;
//   what was not may be there or not, but never a half record, and never a record without all those before it.
// - Threads that wait in sync() at the same time share one fsync.
// - A record that breaks off or fails its checksum at the end of the last segment is the trace of a crash and is cut
//   off (LogRecovery says so). Where later bytes prove that the place had been durable, it is damage: Corruption with
//   file, offset and what was expected. Every record carries that proof for those before it: how much of its segment
//   had been synced when it was written.
// - An append that fails (full disk) has changed nothing and may be tried again. A sync that fails is final: the log
//   refuses everything from then on, and must be opened again.
// - Any number of threads may append and sync at once.
// - After a fork the child cannot use it (StoreLocked).
// docs/reference/storage-format.md has the bytes.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "sage/common/file.hpp"
#include "sage/common/format.hpp"
#include "sage/common/process_guard.hpp"

namespace sage::storage {

enum class SyncPolicy {
    each,   // every append is synced by itself before it returns
    group,  // sync(number) waits; all that wait share one fsync
    none,   // nobody waits: settle() returns at once, the system writes when it likes
};

// The largest payload of a record, whatever the options say; a reader refuses more.
inline constexpr std::uint64_t log_record_bytes_limit = std::uint64_t{1} << 30;

struct LogOptions {
    SyncPolicy policy = SyncPolicy::group;
    // How long the thread that syncs for a group may wait for more appends first. It waits only while as many came as
    // last time: a thread alone never waits.
    std::chrono::microseconds group_delay_max{100};
    // A segment is closed and the next one begun when a record would make it longer (a record alone may).
    std::uint64_t segment_bytes_max = std::uint64_t{64} << 20;
    std::uint64_t record_bytes_max = std::uint64_t{256} << 20;
};

// Whose log it is: segments of another one are refused.
struct LogIdentity {
    Application application;
    std::uint64_t log_id;
};

// What was found at opening.
struct LogRecovery {
    std::uint64_t segments = 0;       // that were read
    std::uint64_t records = 0;        // that were read, visited or not
    std::uint64_t next_sequence = 1;  // of the next record
    std::uint64_t dropped_bytes = 0;  // of an unfinished end, 0 after a clean close
    std::string dropped_why;          // what was wrong with them, with file and offset; empty for none
};

// Called in order of the sequence numbers; the payload is valid during the call.
using RecordVisitor = std::function<void(std::uint64_t sequence, Bytes payload)>;

// Reads a log without changing anything; also while another process writes it.
class LogReader {
public:
    // Opens the segments that hold `from` and what comes after it. Throws NotFound when a segment goes away meanwhile
    // (its writer removed it: begin again from a newer snapshot), Corruption when one is missing.
    LogReader(FileSystem& files, const std::string& directory, const LogIdentity& identity, std::uint64_t from);
    LogReader(LogReader&&) noexcept;
    LogReader& operator=(LogReader&&) noexcept;
    ~LogReader();

    // Visits every record with a sequence number of at least `from`. Throws what `visit` throws.
    LogRecovery replay(const RecordVisitor& visit);

private:
    friend class Log;
    struct Segments;
    std::unique_ptr<Segments> segments_;
};

class Log {
public:
    // Begins a new log in a folder that has none; the first record will have the number `first_sequence`.
    [[nodiscard]] static std::unique_ptr<Log> create(FileSystem& files, const std::string& directory,
                                                     const LogIdentity& identity, const LogOptions& options,
                                                     std::uint64_t first_sequence = 1);

    // Opens an existing one for writing; visits as LogReader does. Everything visited is durable when it returns.
    [[nodiscard]] static std::unique_ptr<Log> open(FileSystem& files, const std::string& directory,
                                                   const LogIdentity& identity, const LogOptions& options,
                                                   std::uint64_t from, const RecordVisitor& visit,
                                                   LogRecovery* recovery = nullptr);

    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;
    ~Log();  // as close(), but errors are lost

    // Returns the record's number. Throws InvalidArgument when the payload is too long, IoError.
    std::uint64_t append(Bytes payload);

    // Returns when the record and all before it are durable; without a number, all that were appended.
    void sync(std::uint64_t sequence);
    void sync();

    // Returns when the record may be acknowledged under the policy: sync() unless the policy is `none`.
    void settle(std::uint64_t sequence);

    // append() and settle().
    std::uint64_t commit(Bytes payload);

    // Ends the segment, so that remove_before() can take it away; syncs.
    void roll();

    // Removes the segments of which all records have smaller numbers.
    void remove_before(std::uint64_t sequence);

    // Syncs, and notes that everything was: damage to any record is found from then on. Later calls do nothing.
    void close();

    [[nodiscard]] std::uint64_t last_sequence() const;     // 0 for none
    [[nodiscard]] std::uint64_t durable_sequence() const;  // everything up to it survives a crash
    [[nodiscard]] std::uint64_t sync_count() const;        // fsyncs for waiting threads so far
    [[nodiscard]] std::uint64_t segment_count() const;

private:
    // On the heap, because a forked child must leave it behind: destroying a condition that a thread of the parent
    // waits for would wait for that thread.
    struct Meeting {
        std::mutex mutex;
        std::condition_variable changed;
    };
    using Held = std::unique_lock<std::mutex>;

    Log(FileSystem& files, std::string directory, LogIdentity identity, const LogOptions& options);

    // All below are called with the mutex held.
    void adopt(const LogReader& reader);
    void start_segment(std::uint64_t first_sequence);
    void end_segment();
    void roll_when_full(Held& held, std::uint64_t frame_bytes);
    void write_record(std::uint16_t kind, Bytes payload);
    void make_room(std::uint64_t bytes);
    void undo_partial_write() noexcept;
    void sync_file();
    void sync_as_leader(Held& held);
    void wait_for_leader(Held& held);
    void require_usable() const;
    void give_up(const std::string& why);

    FileSystem& files_;
    const std::string directory_;
    const LogIdentity identity_;
    const LogOptions options_;
    const ProcessGuard process_;
    std::unique_ptr<Meeting> meeting_;

    bool syncing_ = false;        // a leader is in fsync, without the mutex
    bool wants_company_ = false;  // it waits for more appends first
    bool closed_ = false;
    std::string failed_;  // why nothing works any more; empty while it does
    std::unique_ptr<File> file_;
    std::deque<std::uint64_t> first_sequences_;  // of the segments; the last one is file_
    std::uint64_t end_ = 0;                      // where the next record goes
    std::uint64_t reserved_ = 0;                 // the file's length
    std::uint64_t synced_ = 0;                   // bytes of file_ that are durable
    std::uint64_t next_sequence_ = 1;
    std::uint64_t durable_ = 0;     // everything up to this record is
    std::uint64_t group_size_ = 1;  // records that the last fsync covered
    std::uint64_t sync_count_ = 0;
    bool clean_ = false;  // the file ends with the note of a close, or with nothing
    std::vector<std::byte> frame_;
};

}  // namespace sage::storage
