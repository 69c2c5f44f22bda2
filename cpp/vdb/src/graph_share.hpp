// Work on nodes, spread over threads. Internal.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "graph_core.hpp"

namespace sage::vdb {

constexpr std::size_t claim_size = 32;

inline bool nearer(const Candidate& a, const Candidate& b) { return a.cost < b.cost; }

// Gives out runs of [0, count) to several threads, which call work(context, i).
template <class Work>
void share(std::size_t count, std::size_t threads, ContextPool& contexts, Work work) {
    std::atomic<std::size_t> next{0};
    std::exception_ptr failure;
    std::mutex failure_mutex;
    const auto run = [&] {
        try {
            const ContextPool::Lease lease(contexts);
            for (;;) {
                const std::size_t first = next.fetch_add(claim_size);
                if (first >= count) {
                    return;
                }
                for (std::size_t i = first; i < std::min(count, first + claim_size); ++i) {
                    work(*lease, i);
                }
            }
        } catch (...) {
            const std::lock_guard guard(failure_mutex);
            failure = std::current_exception();
        }
    };
    {
        std::vector<std::jthread> helpers;
        for (std::size_t thread = 1; thread < std::min(threads, count / claim_size + 1); ++thread) {
            helpers.emplace_back(run);
        }
        run();
    }
    if (failure) {
        std::rethrow_exception(failure);
    }
}

}  // namespace sage::vdb
