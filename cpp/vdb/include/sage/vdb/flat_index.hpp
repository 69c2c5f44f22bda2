// An exact index: every search looks at every vector.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "sage/common/aligned.hpp"
#include "sage/common/distance.hpp"
#include "sage/common/fair_shared_mutex.hpp"
#include "sage/vdb/metric.hpp"

namespace sage::vdb {

using Id = std::int64_t;

// The answers to a batch of queries: `query_count` rows of `per_query` ids and scores, best first.
struct SearchResult {
    std::size_t query_count = 0;
    std::size_t per_query = 0;  // min(k, size of the index when the search began)
    std::vector<Id> ids;
    std::vector<float> scores;
};

// A copy of the contents: row i of `vectors` belongs to ids[i].
struct Rows {
    std::vector<Id> ids;
    std::vector<float> vectors;
};

// Exact nearest-neighbour search over float32 vectors that lie contiguously in memory.
//
// Scores: cosine (clamped to [-1, 1]) and inner_product, higher is better; l2 gives the squared distance, lower
// is better. Equal scores are ordered by ascending id, so that a result depends on neither row order nor batch.
//
// What it accepts: any int64 as an id, each once. Vectors must be finite and not longer than length_max, which
// keeps every score finite too. A zero vector (under cosine: shorter than cosine_length_min) is allowed and
// scores 0 against everything under cosine.
//
// Errors are InvalidArgument, or NotFound for an unknown id in get(). A call that throws has changed nothing;
// batches are all or nothing.
//
// Threads: any number of readers or one writer at a time, enforced here; waiting writers go before later
// readers. A search sees the index as it was at one moment. The spans that are passed in must not change
// during the call.
class FlatIndex {
public:
    static constexpr std::size_t dimension_max = 65536;
    // With both lengths below this, (a + b)^2 stays below the largest float.
    static constexpr float length_max = 6.5e18F;
    static constexpr float cosine_length_min = 1e-30F;

    FlatIndex(std::size_t dimension, Metric metric);

    // Adds ids.size() vectors, given row after row. An id that is in the index already is an error.
    void add(std::span<const Id> ids, std::span<const float> vectors);
    // Adds new ids and replaces the vectors of known ones.
    void upsert(std::span<const Id> ids, std::span<const float> vectors);
    // Returns how many there were; unknown ids are passed over. The last rows move into the gaps.
    std::size_t remove(std::span<const Id> ids);
    // Makes room for `count` vectors in total.
    void reserve(std::size_t count);

    // The best min(k, size) of each query; `queries` holds them row after row. k = 0 is an error.
    [[nodiscard]] SearchResult search(std::span<const float> queries, std::size_t k) const;
    [[nodiscard]] bool contains(Id id) const;
    // Copies the vector of `id` as it was given. Throws NotFound.
    void get(Id id, std::span<float> vector) const;
    // Copies of the contents in row order: the order of addition, until the first removal.
    [[nodiscard]] std::vector<Id> ids() const;
    [[nodiscard]] std::vector<float> vectors() const;
    // Ids and vectors of the same moment.
    [[nodiscard]] Rows rows() const;

    [[nodiscard]] std::size_t size() const;
    [[nodiscard]] std::size_t dimension() const noexcept { return dimension_; }
    [[nodiscard]] Metric metric() const noexcept { return metric_; }

private:
    class Source;
    void require_new_batch(std::span<const Id> ids, std::span<const float> vectors) const;
    [[nodiscard]] float inverse_length(const float* vector) const;
    void grow(std::size_t count);
    void append(std::span<const Id> ids, std::span<const float> vectors);

    const std::size_t dimension_;
    const Metric metric_;
    const distance::Kernels& kernels_;

    mutable FairSharedMutex mutex_;
    // Guarded by mutex_. Row i is vectors_[i * dimension_ ...], of id ids_[i]; rows_ finds i.
    AlignedVector<float> vectors_;
    std::vector<Id> ids_;
    std::vector<float> inverse_lengths_;  // cosine only; 0 for a zero vector
    std::unordered_map<Id, std::size_t> rows_;
    std::size_t room_ = 0;  // vectors that fit without allocating
};

}  // namespace sage::vdb
