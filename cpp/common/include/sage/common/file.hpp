// The thin layer between the stores and the operating system's files.
//
// Everything durable goes through FileSystem, so that tests can put a file system below it that crashes at any
// operation, loses what was not synced, runs full or fails to sync.
//
// Rules
// - A call does all it was asked for or throws: IoError (with errno) or NotFound. A write that throws may have written
//   a part of its bytes.
// - Written bytes are visible to readers at once and survive a crash of the machine only after sync(). A new, renamed
//   or removed name survives it only after sync_directory() of its folder.
// - A sync() that fails is final. The system may have thrown the unwritten pages away, and the next fsync would
//   report success for data that is gone: the file is poisoned, every later write and sync throws.
// - Any number of threads may use one File at once; overlapping writes are the caller's affair.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sage::storage {

using Bytes = std::span<const std::byte>;

enum class OpenMode {
    read,    // must exist, cannot be changed
    change,  // must exist
    create,  // must not exist
};

class File {
public:
    explicit File(std::string path) : path_(std::move(path)) {}
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    virtual ~File() = default;  // closes it, syncs nothing

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] virtual std::uint64_t size() const = 0;

    // Fills `out` from `offset` on; returns how many bytes there were, fewer only at the end of the file.
    [[nodiscard]] virtual std::size_t read(std::uint64_t offset, std::span<std::byte> out) const = 0;

    // Writes all of `bytes` at `offset`; a gap before it reads as zeros.
    void write(std::uint64_t offset, Bytes bytes);

    // Makes the file at least `bytes` long, the new part reads as zeros and has its place on the disk; a hint where the
    // file system cannot do that. Syncing a file that does not grow is cheaper.
    void reserve(std::uint64_t bytes);

    // Makes the file exactly `bytes` long.
    void truncate(std::uint64_t bytes);

    // Returns when everything that was written before the call survives a crash of the machine.
    void sync();

private:
    virtual void do_write(std::uint64_t offset, Bytes bytes) = 0;
    virtual void do_reserve(std::uint64_t bytes) = 0;
    virtual void do_truncate(std::uint64_t bytes) = 0;
    virtual void do_sync() = 0;
    void require_sound() const;

    std::string path_;
    std::atomic<bool> poisoned_{false};
};

// A whole file in memory, read-only, as long as the object lives. Starts on a multiple of 64 bytes.
class MappedFile {
public:
    MappedFile() = default;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    virtual ~MappedFile() = default;
    [[nodiscard]] virtual Bytes bytes() const noexcept = 0;
};

// Held as long as the object lives; the system lets go of it when the process ends, however it ends. A forked child
// does not hold it.
class FileLock {
public:
    FileLock() = default;
    FileLock(const FileLock&) = delete;
    FileLock& operator=(const FileLock&) = delete;
    virtual ~FileLock() = default;
    // Replaces the content of the locked file; for messages, not durable.
    virtual void write(std::string_view text) = 0;
};

class FileSystem {
public:
    FileSystem() = default;
    FileSystem(const FileSystem&) = delete;
    FileSystem& operator=(const FileSystem&) = delete;
    virtual ~FileSystem() = default;

    [[nodiscard]] virtual std::unique_ptr<File> open(const std::string& path, OpenMode mode) = 0;
    [[nodiscard]] virtual std::shared_ptr<const MappedFile> map(const std::string& path) = 0;
    [[nodiscard]] virtual bool exists(const std::string& path) = 0;
    // The names in a folder, sorted.
    [[nodiscard]] virtual std::vector<std::string> list(const std::string& directory) = 0;
    // Makes the folder and those above it that are missing, durably; does nothing when it exists.
    virtual void create_directories(const std::string& directory) = 0;
    // Replaces `to` in one step when it exists. Both in one folder.
    virtual void rename(const std::string& from, const std::string& to) = 0;
    virtual void remove(const std::string& path) = 0;
    virtual void sync_directory(const std::string& directory) = 0;
    // Makes the file when it is missing. Nothing when somebody else (or this process itself) holds the lock.
    [[nodiscard]] virtual std::unique_ptr<FileLock> try_lock(const std::string& path) = 0;
};

// The machine's own files. New files are readable for their owner alone.
[[nodiscard]] FileSystem& system_files();

// `directory` and `name` with one slash between them.
[[nodiscard]] std::string join_path(std::string_view directory, std::string_view name);

// The whole content. Throws Corruption when the file is larger than `bytes_max`.
[[nodiscard]] std::vector<std::byte> read_file(FileSystem& files, const std::string& path, std::uint64_t bytes_max);

// Replaces a file in one step: after a crash it holds the old or the new content, once the call has returned the new
// one. Uses `<path>.tmp`.
void replace_file(FileSystem& files, const std::string& path, Bytes content);

// What the names of unfinished files end with; they are removed by the next process that opens a store for writing.
inline constexpr std::string_view temporary_suffix = ".tmp";

}  // namespace sage::storage
