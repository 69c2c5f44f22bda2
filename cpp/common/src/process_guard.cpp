#include "sage/common/process_guard.hpp"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <string>

#include "sage/common/error.hpp"

namespace sage::storage {
namespace {

// How many forks lie between this process and the one that loaded the library.
std::atomic<std::uint64_t> forks{0};

void count_fork() { forks.fetch_add(1, std::memory_order_relaxed); }

}  // namespace

ProcessGuard::ProcessGuard() : process_(static_cast<long>(getpid())) {
    static std::once_flag registered;
    std::call_once(registered, [] {
        if (const int error = pthread_atfork(nullptr, nullptr, &count_fork); error != 0) {
            throw IoError("cannot watch for forks: pthread_atfork failed", error);
        }
    });
    generation_ = forks.load(std::memory_order_relaxed);
}

bool ProcessGuard::is_owner() const noexcept { return forks.load(std::memory_order_relaxed) == generation_; }

void ProcessGuard::require_owner(std::string_view what) const {
    if (!is_owner()) {
        throw StoreLocked(std::string(what) + " was opened by process " + std::to_string(process_) +
                          " and cannot be used in its forked child " + std::to_string(getpid()) +
                          "; open it in the child, after the parent has closed it, or start the child with spawn");
    }
}

}  // namespace sage::storage
