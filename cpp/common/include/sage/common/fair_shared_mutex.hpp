// A shared mutex in which a stream of readers cannot starve a writer.
#pragma once

#include <mutex>
#include <shared_mutex>

namespace sage {

// std::shared_mutex may prefer readers (glibc's does), so that overlapping searches would keep an add
// waiting for ever. Here everybody passes a gate first: a waiting writer holds it, the readers inside finish,
// later readers queue up behind the writer. Works with std::unique_lock and std::shared_lock; not recursive.
class FairSharedMutex {
public:
    void lock() {
        const std::lock_guard<std::mutex> pass(gate_);
        mutex_.lock();
    }
    void unlock() { mutex_.unlock(); }
    void lock_shared() {
        const std::lock_guard<std::mutex> pass(gate_);
        mutex_.lock_shared();
    }
    void unlock_shared() { mutex_.unlock_shared(); }

private:
    std::mutex gate_;
    std::shared_mutex mutex_;
};

}  // namespace sage
