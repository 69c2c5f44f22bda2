#include "sage/vdb/flat_index.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_set>
#include <utility>

#include "exact_scan.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb {
namespace {

std::string non_finite_name(float value) {
    if (std::isnan(value)) {
        return "nan";
    }
    return value > 0 ? "inf" : "-inf";
}

double length_of(const float* vector, std::size_t dimension) {
    // Four sums, because one addition waits for the one before it.
    double sums[4] = {0.0, 0.0, 0.0, 0.0};
    for (std::size_t i = 0; i < dimension; ++i) {
        const auto value = static_cast<double>(vector[i]);
        sums[i % 4] += value * value;
    }
    return std::sqrt((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// One pass at full speed: NaN and infinities reach the sum, too long vectors exceed the limit, and only then is
// the culprit looked for.
void require_finite(std::span<const float> vectors, std::size_t dimension, const char* what,
                    const distance::Kernels& kernels) {
    constexpr float limit = FlatIndex::length_max * FlatIndex::length_max;
    const std::size_t count = vectors.size() / dimension;
    for (std::size_t row = 0; row < count; ++row) {
        const float* vector = vectors.data() + row * dimension;
        if (kernels.inner_product(vector, vector, dimension) <= limit) {
            continue;
        }
        const std::string name = std::string(what) + "[" + std::to_string(row) + "]";
        for (std::size_t i = 0; i < dimension; ++i) {
            if (!std::isfinite(vector[i])) {
                throw InvalidArgument(name + "[" + std::to_string(i) + "] must be finite, got " +
                                      non_finite_name(vector[i]));
            }
        }
        char length[32];
        std::snprintf(length, sizeof length, "%.3g", length_of(vector, dimension));
        throw InvalidArgument(name + " must not be longer than 6.5e18, so that scores stay finite, got a length of " +
                              length);
    }
}

void require_rows(std::size_t ids, std::size_t values, std::size_t dimension) {
    if (ids > std::numeric_limits<std::size_t>::max() / dimension || values != ids * dimension) {
        throw InvalidArgument("vectors must hold one row of dimension " + std::to_string(dimension) + " per id, got " +
                              std::to_string(values) + " values for " + std::to_string(ids) + " ids");
    }
}

void require_distinct(std::span<const Id> ids) {
    std::unordered_set<Id> seen;
    seen.reserve(ids.size());
    for (std::size_t row = 0; row < ids.size(); ++row) {
        if (!seen.insert(ids[row]).second) {
            const auto first = std::find(ids.begin(), ids.end(), ids[row]) - ids.begin();
            throw InvalidArgument("ids must be distinct within a batch, got " + std::to_string(ids[row]) +
                                  " in rows " + std::to_string(first) + " and " + std::to_string(row));
        }
    }
}

// A copy of the queries; under cosine each of length 1, or 0 where there is no direction.
AlignedVector<float> prepared_queries(std::span<const float> queries, std::size_t dimension, Metric metric) {
    AlignedVector<float> prepared(queries.begin(), queries.end());
    if (metric != Metric::cosine) {
        return prepared;
    }
    for (std::size_t first = 0; first < prepared.size(); first += dimension) {
        float* query = prepared.data() + first;
        const double length = length_of(query, dimension);
        const double scale = length < static_cast<double>(FlatIndex::cosine_length_min) ? 0.0 : 1.0 / length;
        std::transform(query, query + dimension, query,
                       [scale](float x) { return static_cast<float>(static_cast<double>(x) * scale); });
    }
    return prepared;
}

std::size_t checked_dimension(std::size_t dimension) {
    if (dimension < 1 || dimension > FlatIndex::dimension_max) {
        throw InvalidArgument("dimension must be between 1 and " + std::to_string(FlatIndex::dimension_max) + ", got " +
                              std::to_string(dimension));
    }
    return dimension;
}

}  // namespace

FlatIndex::FlatIndex(std::size_t dimension, Metric metric)
    : dimension_(checked_dimension(dimension)), metric_(metric), kernels_(distance::kernels()) {}

void FlatIndex::require_new_batch(std::span<const Id> ids, std::span<const float> vectors) const {
    require_rows(ids.size(), vectors.size(), dimension_);
    require_distinct(ids);
    require_finite(vectors, dimension_, "vectors", kernels_);
}

float FlatIndex::inverse_length(const float* vector) const {
    // In double: the squares of short vectors vanish in a float.
    const double length = length_of(vector, dimension_);
    return length < static_cast<double>(cosine_length_min) ? 0.0F : static_cast<float>(1.0 / length);
}

// Room for `count` vectors in total. A reallocation leaves the contents as they are, so it may throw.
void FlatIndex::grow(std::size_t count) {
    if (count > vectors_.max_size() / dimension_) {
        throw std::bad_alloc();
    }
    // Twice the capacity at least, or adding one by one would copy everything each time.
    if (count > room_) {
        const std::size_t room = std::max(count, std::min(2 * room_, vectors_.max_size() / dimension_));
        vectors_.reserve(room * dimension_);
        inverse_lengths_.reserve(metric_ == Metric::cosine ? room : 0);
        rows_.reserve(room);
        ids_.reserve(room);
        room_ = room;
    }
}

// The caller holds the lock and has checked everything.
void FlatIndex::append(std::span<const Id> ids, std::span<const float> vectors) {
    grow(ids_.size() + ids.size());
    const std::size_t first = ids_.size();
    std::size_t entered = 0;
    try {
        for (; entered < ids.size(); ++entered) {
            rows_.emplace(ids[entered], first + entered);
        }
    } catch (...) {
        // Out of memory between two entries: take back what went in, then let the caller know.
        for (std::size_t row = 0; row < entered; ++row) {
            rows_.erase(ids[row]);
        }
        throw;
    }
    // There is room: nothing below throws.
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    vectors_.insert(vectors_.end(), vectors.begin(), vectors.end());
    if (metric_ == Metric::cosine) {
        for (std::size_t row = 0; row < ids.size(); ++row) {
            inverse_lengths_.push_back(inverse_length(vectors.data() + row * dimension_));
        }
    }
}

void FlatIndex::add(std::span<const Id> ids, std::span<const float> vectors) {
    require_new_batch(ids, vectors);
    const std::unique_lock lock(mutex_);
    for (std::size_t row = 0; row < ids.size(); ++row) {
        if (rows_.contains(ids[row])) {
            throw InvalidArgument("ids must be new to the index, got " + std::to_string(ids[row]) + " in row " +
                                  std::to_string(row) + "; upsert replaces vectors");
        }
    }
    append(ids, vectors);
}

void FlatIndex::upsert(std::span<const Id> ids, std::span<const float> vectors) {
    require_new_batch(ids, vectors);
    const std::unique_lock lock(mutex_);
    std::vector<Id> new_ids;
    std::vector<float> new_vectors;
    std::vector<std::pair<std::size_t, const float*>> replaced;
    for (std::size_t row = 0; row < ids.size(); ++row) {
        const float* vector = vectors.data() + row * dimension_;
        if (const auto known = rows_.find(ids[row]); known != rows_.end()) {
            replaced.emplace_back(known->second, vector);
        } else {
            new_ids.push_back(ids[row]);
            new_vectors.insert(new_vectors.end(), vector, vector + dimension_);
        }
    }
    append(new_ids, new_vectors);
    // Last, because it cannot throw: a failed append leaves the old vectors in place.
    for (const auto& [row, vector] : replaced) {
        std::copy_n(vector, dimension_, vectors_.data() + row * dimension_);
        if (metric_ == Metric::cosine) {
            inverse_lengths_[row] = inverse_length(vector);
        }
    }
}

std::size_t FlatIndex::remove(std::span<const Id> ids) {
    const std::unique_lock lock(mutex_);
    std::size_t removed = 0;
    for (const Id id : ids) {
        const auto known = rows_.find(id);
        if (known == rows_.end()) {
            continue;
        }
        const std::size_t row = known->second;
        const std::size_t last = ids_.size() - 1;
        rows_.erase(known);
        if (row != last) {
            ids_[row] = ids_[last];
            std::copy_n(vectors_.data() + last * dimension_, dimension_, vectors_.data() + row * dimension_);
            rows_.find(ids_[row])->second = row;
        }
        if (metric_ == Metric::cosine) {
            inverse_lengths_[row] = inverse_lengths_[last];
            inverse_lengths_.pop_back();
        }
        ids_.pop_back();
        vectors_.resize(last * dimension_);
        ++removed;
    }
    return removed;
}

void FlatIndex::reserve(std::size_t count) {
    const std::unique_lock lock(mutex_);
    grow(count);
}

// The rows of an index as the exact search takes them. The caller holds the lock.
class FlatIndex::Source {
public:
    using Query = const float*;

    explicit Source(const FlatIndex& index) : index_(index) {}
    [[nodiscard]] std::size_t blocks() const { return (index_.ids_.size() + block_rows - 1) / block_rows; }
    bool load(std::size_t block, RowBlock& rows) const {
        const std::size_t first = block * block_rows;
        rows.count = std::min(block_rows, index_.ids_.size() - first);
        for (std::size_t i = 0; i < rows.count; ++i) {
            enter(rows, i, first + i);
            rows.places[i] = static_cast<std::uint32_t>(i);
        }
        return true;
    }
    void at(std::size_t position, RowBlock& rows) const {
        rows.count = 1;
        enter(rows, 0, position);
    }
    // Costs, lower is better: the score itself for l2, its negation otherwise.
    void costs(Query query, const RowBlock& rows, float* costs) const {
        const float* values[block_rows];
        for (std::size_t i = 0; i < rows.count; ++i) {
            values[i] = reinterpret_cast<const float*>(rows.rows[i]);
        }
        const distance::PanelKernels& kernels = distance::panel_kernels();
        const std::size_t dimension = index_.dimension_;
        if (index_.metric_ == Metric::l2) {
            kernels.l2_squared_rows(query, values, rows.count, dimension, costs);
            return;
        }
        kernels.product_rows(query, values, rows.count, dimension, costs);
        if (index_.metric_ == Metric::inner_product) {
            std::transform(costs, costs + rows.count, costs, [](float x) { return -x; });
            return;
        }
        // The query has length 1. Rounding may step out of the interval by an ulp.
        const float* scales = inverse_lengths(rows);
        for (std::size_t i = 0; i < rows.count; ++i) {
            costs[i] = -std::clamp(costs[i] * scales[i], -1.0F, 1.0F);
        }
    }
    void floats(const RowBlock& rows, AlignedVector<float>& /*buffer*/, const float** pointers,
                const float*& scales) const {
        for (std::size_t i = 0; i < rows.count; ++i) {
            pointers[i] = reinterpret_cast<const float*>(rows.rows[i]);
        }
        scales = index_.metric_ == Metric::cosine ? inverse_lengths(rows) : nullptr;
    }
    [[nodiscard]] Query prepare(const float* query) const { return query; }

private:
    void enter(RowBlock& rows, std::size_t i, std::size_t row) const {
        rows.rows[i] = reinterpret_cast<const std::byte*>(index_.vectors_.data() + row * index_.dimension_);
        rows.keys[i] = index_.ids_[row];
    }
    // Rows of a block follow one another.
    [[nodiscard]] const float* inverse_lengths(const RowBlock& rows) const {
        const auto* first = reinterpret_cast<const float*>(rows.rows[0]);
        return index_.inverse_lengths_.data() +
               static_cast<std::size_t>(first - index_.vectors_.data()) / index_.dimension_;
    }

    const FlatIndex& index_;
};

SearchResult FlatIndex::search(std::span<const float> queries, std::size_t k) const {
    if (k < 1) {
        throw InvalidArgument("k must be >= 1, got 0");
    }
    if (queries.size() % dimension_ != 0) {
        throw InvalidArgument("queries must hold rows of dimension " + std::to_string(dimension_) + ", got " +
                              std::to_string(queries.size()) + " values");
    }
    require_finite(queries, dimension_, "queries", kernels_);
    SearchResult result;
    result.query_count = queries.size() / dimension_;
    const AlignedVector<float> prepared = prepared_queries(queries, dimension_, metric_);

    const std::shared_lock lock(mutex_);
    result.per_query = std::min(k, ids_.size());
    if (result.per_query == 0 || result.query_count == 0) {
        return result;
    }
    std::vector<TopK> best(result.query_count, TopK(0));
    for (TopK& top : best) {
        top.reset(result.per_query);
    }
    const Source source(*this);
    if (result.query_count >= many_queries && result.per_query <= many_hits_max) {
        ExactBatch(source, metric_, dimension_).search(prepared.data(), result.query_count, best, result.per_query);
    } else {
        for (std::size_t q = 0; q < result.query_count; ++q) {
            exact_one(source, prepared.data() + q * dimension_, best[q]);
        }
    }
    result.ids.reserve(result.query_count * result.per_query);
    result.scores.reserve(result.query_count * result.per_query);
    const float sign = higher_is_better(metric_) ? -1.0F : 1.0F;
    for (TopK& top : best) {
        for (const TopK::Candidate& candidate : top.sorted()) {
            result.ids.push_back(candidate.id);
            result.scores.push_back(candidate.cost * sign);
        }
    }
    return result;
}

bool FlatIndex::contains(Id id) const {
    const std::shared_lock lock(mutex_);
    return rows_.contains(id);
}

void FlatIndex::get(Id id, std::span<float> vector) const {
    if (vector.size() != dimension_) {
        throw InvalidArgument("the vector must have dimension " + std::to_string(dimension_) + ", got " +
                              std::to_string(vector.size()));
    }
    const std::shared_lock lock(mutex_);
    const auto known = rows_.find(id);
    if (known == rows_.end()) {
        throw NotFound("id must be in the index, got " + std::to_string(id));
    }
    std::copy_n(vectors_.data() + known->second * dimension_, dimension_, vector.data());
}

std::vector<Id> FlatIndex::ids() const {
    const std::shared_lock lock(mutex_);
    return ids_;
}

std::vector<float> FlatIndex::vectors() const {
    const std::shared_lock lock(mutex_);
    return {vectors_.begin(), vectors_.end()};
}

Rows FlatIndex::rows() const {
    const std::shared_lock lock(mutex_);
    return {ids_, {vectors_.begin(), vectors_.end()}};
}

std::size_t FlatIndex::size() const {
    const std::shared_lock lock(mutex_);
    return ids_.size();
}

}  // namespace sage::vdb
