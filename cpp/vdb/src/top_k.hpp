// The best k of a stream of scores. Internal.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace sage::vdb {

// Keeps the k candidates of lowest cost in a heap with the worst on top: O(n log k), memory for k. Equal costs
// are ordered by ascending id, whatever the order of arrival. Costs must not be NaN.
class TopK {
public:
    struct Candidate {
        float cost;
        std::int64_t id;

        bool operator<(const Candidate& other) const noexcept {
            return cost != other.cost ? cost < other.cost : id < other.id;
        }
    };

    explicit TopK(std::size_t k) : k_(k) { heap_.reserve(std::min<std::size_t>(k, 4096)); }
    void reset(std::size_t k) {
        k_ = k;
        heap_.clear();
    }

    void push(float cost, std::int64_t id) {
        const Candidate candidate{cost, id};
        if (heap_.size() < k_) {
            heap_.push_back(candidate);
            std::push_heap(heap_.begin(), heap_.end());
        } else if (k_ != 0 && candidate < heap_.front()) {
            std::pop_heap(heap_.begin(), heap_.end());
            heap_.back() = candidate;
            std::push_heap(heap_.begin(), heap_.end());
        }
    }

    [[nodiscard]] std::size_t room() const noexcept { return k_; }
    [[nodiscard]] std::size_t size() const noexcept { return heap_.size(); }
    // No candidate above it can enter.
    [[nodiscard]] float limit() const noexcept {
        return heap_.size() < k_ ? std::numeric_limits<float>::infinity() : heap_.front().cost;
    }

    // Best first. Ends the use as a heap.
    std::span<const Candidate> sorted() {
        std::sort_heap(heap_.begin(), heap_.end());
        return heap_;
    }

private:
    std::size_t k_;
    std::vector<Candidate> heap_;
};

}  // namespace sage::vdb
