// The one exact search: looks at every row, one query at a time or many at once. Internal.
//
// A Source offers rows in blocks of at most 64:
//   blocks()                        how many blocks there are
//   load(block, rows)               fills a RowBlock; false when it is empty
//   at(position, rows)              the same of one row alone; position = block * 64 + place
//   costs(query, rows, costs)       costs of one query, as a caller of the index gets them
//   floats(rows, buffer, pointers, scales)  the rows as float32, and factors to apply or nullptr
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "sage/common/aligned.hpp"
#include "sage/common/distance.hpp"
#include "sage/common/panel.hpp"
#include "sage/vdb/metric.hpp"
#include "top_k.hpp"

namespace sage::vdb {

constexpr std::size_t block_rows = distance::panel_rows;

struct RowBlock {
    std::size_t count = 0;
    const std::byte* rows[block_rows];
    std::int64_t keys[block_rows];
    std::uint32_t places[block_rows];  // within the block
};

// All within a limit, for range searches; as TopK otherwise.
class Within {
public:
    explicit Within(float limit) : limit_(limit) {}
    [[nodiscard]] float limit() const noexcept { return limit_; }
    void push(float cost, std::int64_t id) { found_.push_back({cost, id}); }
    std::span<const TopK::Candidate> sorted() {
        std::sort(found_.begin(), found_.end());
        return found_;
    }

private:
    float limit_;
    std::vector<TopK::Candidate> found_;
};

// One query against all rows.
template <class Source, class Best>
void exact_one(const Source& source, const typename Source::Query& query, Best& best) {
    RowBlock rows;
    float costs[block_rows];
    const std::size_t blocks = source.blocks();
    for (std::size_t block = 0; block < blocks; ++block) {
        if (!source.load(block, rows)) {
            continue;
        }
        source.costs(query, rows, costs);
        float limit = best.limit();
        for (std::size_t i = 0; i < rows.count; ++i) {
            if (costs[i] <= limit) {
                best.push(costs[i], rows.keys[i]);
                limit = best.limit();
            }
        }
    }
}

// From so many queries on, and with not more hits than that, rows are packed and multiplied.
constexpr std::size_t many_queries = 8;
constexpr std::size_t many_hits_max = 1024;

// Many queries (floats, row after row) against all rows: the costs of exact_one for each, the same to the last bit.
//
// Products of packed rows choose some more candidates than asked for, and those are scored as a query alone scores
// them. What was not chosen has a product above the last one chosen; with the bound on the products' error that
// proves, or fails to prove, that it is not among the best. Where it fails, the query is done alone.
template <class Source>
class ExactBatch {
public:
    ExactBatch(const Source& source, Metric metric, std::size_t dimension)
        : source_(source), metric_(metric), dimension_(dimension), panel_(dimension * block_rows) {}

    void search(const float* queries, std::size_t query_count, std::vector<TopK>& best, std::size_t k) {
        const std::size_t kept = k + std::max<std::size_t>(16, k / 8);
        std::vector<TopK> chosen(query_count, TopK(0));
        for (TopK& top : chosen) {
            top.reset(kept);
        }
        AlignedVector<float> products(group * block_rows);
        RowBlock rows;
        float costs[block_rows];
        const auto& kernels = distance::panel_kernels();
        const float factor = metric_ == Metric::l2 ? -2.0F : -1.0F;
        for (std::size_t block = 0; block < source_.blocks(); ++block) {
            if (!source_.load(block, rows)) {
                continue;
            }
            pack(rows);
            for (std::size_t first = 0; first < query_count; first += group) {
                const std::size_t here = std::min(group, query_count - first);
                kernels.products(panel_.data(), dimension_, queries + first * dimension_, here, products.data());
                for (std::size_t q = 0; q < here; ++q) {
                    TopK& top = chosen[first + q];
                    std::uint64_t mask =
                        kernels.select(products.data() + q * block_rows, addends_, factor, top.limit(), costs);
                    for (mask &= used_; mask != 0; mask &= mask - 1) {
                        const auto i = static_cast<std::size_t>(std::countr_zero(mask));
                        top.push(costs[i], static_cast<std::int64_t>(block * block_rows + rows.places[i]));
                    }
                }
            }
        }
        for (std::size_t q = 0; q < query_count; ++q) {
            settle(queries + q * dimension_, chosen[q], best[q], k, kept);
        }
    }

private:
    static constexpr std::size_t group = 96;

    void pack(const RowBlock& rows) {
        const float* pointers[block_rows];
        const float* scales = nullptr;
        source_.floats(rows, buffer_, pointers, scales);
        distance::panel_kernels().pack(pointers, scales, rows.count, dimension_, panel_.data());
        used_ = rows.count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << rows.count) - 1U;
        for (std::size_t i = 0; i < rows.count; ++i) {
            const float scale = scales == nullptr ? 1.0F : scales[i];
            const float squares =
                distance::kernels().inner_product(pointers[i], pointers[i], dimension_) * scale * scale;
            longest_ = std::max(longest_, squares);
            addends_[i] = metric_ == Metric::l2 ? squares : 0.0F;
        }
    }

    void settle(const float* query, TopK& chosen, TopK& best, std::size_t k, std::size_t kept) {
        const typename Source::Query prepared = source_.prepare(query);
        RowBlock rows;
        float cost = 0.0F;
        const auto candidates = chosen.sorted();
        for (const TopK::Candidate& candidate : candidates) {
            source_.at(static_cast<std::size_t>(candidate.id), rows);
            source_.costs(prepared, rows, &cost);
            best.push(cost, rows.keys[0]);
        }
        if (candidates.size() < kept) {
            return;  // all rows there are
        }
        const double squares = static_cast<double>(distance::kernels().inner_product(query, query, dimension_));
        const double lengths = std::sqrt(squares) * std::sqrt(static_cast<double>(longest_));
        const auto terms = static_cast<double>(dimension_);
        double error = (terms + 16.0) * lengths;
        double left_out = static_cast<double>(candidates.back().cost);
        if (metric_ == Metric::l2) {
            error = 2.0 * error + (terms / 16.0 + 32.0) * (squares + static_cast<double>(longest_));
            left_out += squares;
        } else {
            error += (terms / 16.0 + 32.0) * lengths;
        }
        error *= 2.0 / 16777216.0;
        // Written so that NaN and infinity do not pass.
        if (!(left_out - error > static_cast<double>(best.limit()))) {
            best.reset(k);
            exact_one(source_, prepared, best);
        }
    }

    const Source& source_;
    Metric metric_;
    std::size_t dimension_;
    AlignedVector<float> panel_;
    AlignedVector<float> buffer_;
    float addends_[block_rows] = {};
    std::uint64_t used_ = 0;
    float longest_ = 0.0F;
};

}  // namespace sage::vdb
