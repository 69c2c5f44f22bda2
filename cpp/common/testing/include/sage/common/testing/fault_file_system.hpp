// A file system in memory that fails as real ones do, for tests.
//
// It holds every file and folder twice: as programs see it, and as it would be found after a crash of the machine. What
// lies between the two are the operations that were not synced; a crash lets any part of them happen, in any order.
//
// Models
// - crash: from the chosen operation on everything throws SimulatedCrash. after_crash() gives the disk as the machine
//   could find it: what was synced, and of each unsynced write any bytes (also others than the first ones, also only
//   some bits of a sector: rubbish), of unsynced changes of names any subset.
// - killed process: after_kill() gives everything as programs saw it.
// - failing sync: it throws, and what it should have made durable never will be, although it can still be read and
//   later syncs succeed, as on Linux. Of a folder, the names stay as they were, not durable, until a later sync:
//   file systems keep names in a journal and do not forget them silently.
// - full disk: a write that does not fit writes what fits and throws ENOSPC.
// - read-only: every change throws EROFS.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "sage/common/file.hpp"

namespace sage::storage::testing {

// No sage::Error: code under test must not be able to handle it.
class SimulatedCrash : public std::exception {
public:
    [[nodiscard]] const char* what() const noexcept override { return "the machine has crashed"; }
};

class FaultFileSystem final : public FileSystem {
public:
    FaultFileSystem();
    ~FaultFileSystem() override;

    // Operations that change something, so far; reading is not counted.
    [[nodiscard]] std::uint64_t operations() const;
    // The machine crashes in the operation of this number (the next one has the number operations()).
    void crash_at(std::uint64_t operation);
    // The sync of this number among all syncs of files and folders fails; syncs() counts them.
    void fail_sync_at(std::uint64_t sync);
    [[nodiscard]] std::uint64_t syncs() const;
    // Called in every sync of a file between its begin and its end: what is written there is not covered by it.
    void set_sync_hook(std::function<void()> hook);
    void set_capacity(std::uint64_t bytes);  // of all files together
    void set_read_only(bool read_only);

    // What is found by the next process; locks are gone. The same seed gives the same disk.
    [[nodiscard]] std::unique_ptr<FaultFileSystem> after_crash(std::uint64_t seed) const;
    [[nodiscard]] std::unique_ptr<FaultFileSystem> after_kill() const;

    // For damage by hand: the content, as programs see it and as it is durable.
    [[nodiscard]] std::vector<std::byte> content(const std::string& path) const;
    void set_content(const std::string& path, std::vector<std::byte> content);

    std::unique_ptr<File> open(const std::string& path, OpenMode mode) override;
    std::shared_ptr<const MappedFile> map(const std::string& path) override;
    bool exists(const std::string& path) override;
    std::vector<std::string> list(const std::string& directory) override;
    void create_directories(const std::string& directory) override;
    void rename(const std::string& from, const std::string& to) override;
    void remove(const std::string& path) override;
    void sync_directory(const std::string& directory) override;
    std::unique_ptr<FileLock> try_lock(const std::string& path) override;

private:
    struct Node;
    struct State;
    class OpenFile;
    class Lock;

    std::shared_ptr<State> state_;
};

}  // namespace sage::storage::testing
