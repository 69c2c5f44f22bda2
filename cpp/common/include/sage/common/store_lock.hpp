// One process at a time writes to a store.
#pragma once

#include <memory>
#include <string>

#include "sage/common/file.hpp"
#include "sage/common/process_guard.hpp"

namespace sage::storage {

inline constexpr std::string_view lock_file_name = "LOCK";

// Held as long as the object lives. The system releases it when the process ends, however it ends: the file stays, that
// means nothing. A forked child does not hold it. Readers take no lock.
class StoreLock {
public:
    // Throws StoreLocked, which names the process and the path, when somebody else has it, this process included.
    StoreLock(FileSystem& files, const std::string& directory);

    // Throws StoreLocked in a forked child.
    void require_owner() const;
    [[nodiscard]] bool is_owner() const noexcept { return process_.is_owner(); }

private:
    std::string subject_;
    ProcessGuard process_;
    std::unique_ptr<FileLock> lock_;
};

}  // namespace sage::storage
