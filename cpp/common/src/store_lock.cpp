#include "sage/common/store_lock.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <vector>

#include "sage/common/error.hpp"

namespace sage::storage {
namespace {

constexpr std::uint64_t lock_file_bytes_max = 4096;

// "process 12", as far as the file says so: it is written after the lock was taken.
std::string holder(FileSystem& files, const std::string& path) {
    std::string text;
    try {
        for (const std::byte byte : read_file(files, path, lock_file_bytes_max)) {
            text += static_cast<char>(byte);
        }
    } catch (const Error&) {
        return "another process";  // the refusal stands, with or without a name
    }
    long process = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), process);
    if (error != std::errc{} || process <= 0) {
        return "another process";
    }
    return process == static_cast<long>(getpid()) ? "this process (" + std::to_string(process) + ")"
                                                  : "process " + std::to_string(process);
}

std::unique_ptr<FileLock> try_lock(FileSystem& files, const std::string& path) {
    try {
        return files.try_lock(path);
    } catch (const IoError& error) {
        if (error.code() == EROFS || error.code() == EACCES) {
            throw IoError(std::string(error.what()) + "; opened read-only, the store needs no lock", error.code());
        }
        throw;
    }
}

}  // namespace

StoreLock::StoreLock(FileSystem& files, const std::string& directory) : subject_("the store '" + directory + "'") {
    const std::string path = join_path(directory, lock_file_name);
    lock_ = try_lock(files, path);
    if (!lock_) {
        throw StoreLocked(subject_ + " is open for writing in " + holder(files, path) + " (lock file '" + path +
                          "'); one process at a time may write, open it read-only or close the other one first");
    }
    try {
        lock_->write(std::to_string(getpid()) + "\n");
    } catch (const IoError&) {
        // A full disk: the lock is held all the same, only the message to others has no name.
    }
}

void StoreLock::require_owner() const { process_.require_owner(subject_); }

}  // namespace sage::storage
