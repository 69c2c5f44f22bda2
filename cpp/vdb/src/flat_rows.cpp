// The exact index over slots: every search looks at every row, or at every code.
#include <algorithm>
#include <bit>
#include <optional>
#include <string>
#include <utility>

#include "row_sketch.hpp"
#include "sage/common/error.hpp"
#include "slot_index.hpp"

namespace sage::vdb {
namespace {

constexpr std::size_t many_sketched_queries = 24;

class FlatRows final : public SlotIndex {
public:
    FlatRows(const IndexOptions& options, std::string why)
        : SlotIndex(options), rows_((codec_.row_bytes() + 15) / 16 * 16), why_(std::move(why)) {
        if (codec_.plain() && !fine_ && options_.dimension >= RowSketch::dimension_min) {
            sketch_.emplace(options_.dimension, options_.metric);
        }
    }

    using Index::search;
    void search_batch(std::span<const float> queries, std::size_t k, std::size_t effort, Slot* slots, float* scores,
                      std::size_t* counts, std::size_t threads, const Allowed* allowed) const override;
    [[nodiscard]] Hits range_search(std::span<const float> query, float radius, std::size_t effort,
                                    const Allowed* allowed) const override;
    [[nodiscard]] std::string_view name() const noexcept override { return "flat"; }
    [[nodiscard]] std::string explain() const override {
        return "flat: " + why_ + "; every search looks at all " + std::to_string(size()) + " vectors, " +
               storage_text() + (sketch_ ? ", and reads those that 8-bit codes do not rule out" : "");
    }

protected:
    void place(std::span<const Slot> slots, std::span<const float> vectors, std::size_t /*threads*/) override {
        reserve_rows(std::size_t{*std::max_element(slots.begin(), slots.end())} + 1);
        for (std::size_t i = 0; i < slots.size(); ++i) {
            codec_.encode(vectors.data() + i * options_.dimension, rows_.row(slots[i]));
            if (sketch_) {
                sketch_->encode(slots[i], vectors.data() + i * options_.dimension);
            }
        }
    }
    void drop(std::span<const Slot> slots) override { retire(slots); }
    void find(SearchScratch& scratch, std::size_t effort, const Allowed* allowed, TopK& best) const override;
    [[nodiscard]] const std::byte* row_of(Slot slot) const override { return rows_.row(slot); }
    [[nodiscard]] std::size_t kept_bytes() const override {
        return slot_end() * (rows_.stride() + (sketch_ ? sketch_->row_bytes() : 0));
    }
    void load_rows(IndexReader& /*in*/, std::span<const Slot> held, const std::vector<bool>& /*live*/,
                   std::span<const std::byte> rows) override {
        reserve_rows(held.empty() ? 0 : std::size_t{held.back()} + 1);
        const std::size_t bytes = codec_.row_bytes();
        for (std::size_t i = 0; i < held.size(); ++i) {
            std::copy_n(rows.data() + i * bytes, bytes, rows_.row(held[i]));
            if (sketch_) {
                sketch_->encode(held[i], reinterpret_cast<const float*>(rows_.row(held[i])));
            }
        }
    }

private:
    class Source;

    void reserve_rows(std::size_t end) {
        rows_.reserve(end, [](std::byte*, std::size_t) {});
        if (sketch_) {
            sketch_->reserve(end);
        }
    }
    template <class Best>
    void look_at_all(const RowCodec::Query& query, const Allowed* allowed, Best& best) const;

    SlotArray<std::byte> rows_;
    std::optional<RowSketch> sketch_;
    std::string why_;
};

// Blocks are the words of the bitmaps; 64 rows of one lie together in memory.
class FlatRows::Source {
public:
    using Query = RowCodec::Query;

    Source(const FlatRows& index, const Allowed* allowed) : index_(index), allowed_(allowed) {
        const std::size_t words = (index.slot_end() + 63) / 64;
        blocks_ = allowed == nullptr ? words : std::min(words, allowed->size());
    }
    [[nodiscard]] std::size_t blocks() const { return blocks_; }
    [[nodiscard]] std::uint64_t wanted(std::size_t block) const {
        return index_.live_word(block) & (allowed_ == nullptr ? ~std::uint64_t{0} : (*allowed_)[block]);
    }
    bool load(std::size_t block, RowBlock& rows) const { return load(block, wanted(block), rows); }
    bool load(std::size_t block, std::uint64_t mask, RowBlock& rows) const {
        rows.count = 0;
        if (mask == 0) {
            return false;
        }
        const std::byte* first = index_.rows_.row(static_cast<Slot>(block * 64));
        const std::size_t stride = index_.rows_.stride();
        for (; mask != 0; mask &= mask - 1) {
            const auto place = static_cast<std::uint32_t>(std::countr_zero(mask));
            rows.rows[rows.count] = first + place * stride;
            rows.places[rows.count] = place;
            rows.keys[rows.count++] = static_cast<std::int64_t>(block * 64 + place);
        }
        return true;
    }
    void at(std::size_t position, RowBlock& rows) const {
        rows.count = 1;
        rows.rows[0] = index_.rows_.row(static_cast<Slot>(position));
        rows.keys[0] = static_cast<std::int64_t>(position);
    }
    void costs(const Query& query, const RowBlock& rows, float* costs) const {
        index_.costs_in_order(query, rows.rows, rows.count, index_.rows_.stride(), costs);
    }
    void floats(const RowBlock& rows, AlignedVector<float>& buffer, const float** pointers,
                const float*& /*scales*/) const {
        const std::size_t dimension = index_.options_.dimension;
        if (!index_.codec_.plain()) {
            buffer.resize(block_rows * dimension);
        }
        for (std::size_t i = 0; i < rows.count; ++i) {
            if (index_.codec_.plain()) {
                pointers[i] = reinterpret_cast<const float*>(rows.rows[i]);
            } else {
                index_.codec_.decode(rows.rows[i], buffer.data() + i * dimension);
                pointers[i] = buffer.data() + i * dimension;
            }
        }
    }
    [[nodiscard]] Query prepare(const float* query) const {
        Query prepared;
        index_.codec_.prepare(query, prepared);
        return prepared;
    }

private:
    const FlatRows& index_;
    const Allowed* allowed_;
    std::size_t blocks_;
};

// What exact_one() finds, without reading the rows that the sketch rules out.
template <class Best>
void FlatRows::look_at_all(const RowCodec::Query& query, const Allowed* allowed, Best& best) const {
    const Source source(*this, allowed);
    if (!sketch_) {
        exact_one(source, query, best);
        return;
    }
    thread_local RowSketch::Query sketched;
    sketch_->prepare(query.values.data(), sketched);
    RowBlock rows;
    float costs[block_rows];
    std::size_t looked_at = 0;
    std::size_t read = 0;
    for (std::size_t block = 0; block < source.blocks(); ++block) {
        std::uint64_t mask = source.wanted(block);
        // Where hardly a row is ruled out the codes only cost; now and then they get another try.
        const bool pays = read * 2 < looked_at || looked_at < 1024 || block % 32 == 0;
        if (pays && mask != 0) {
            looked_at += static_cast<std::size_t>(std::popcount(mask));
            mask = sketch_->within(sketched, static_cast<Slot>(block * block_rows), mask, best.limit());
            read += static_cast<std::size_t>(std::popcount(mask));
        }
        if (!source.load(block, mask, rows)) {
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

void FlatRows::find(SearchScratch& scratch, std::size_t /*effort*/, const Allowed* allowed, TopK& best) const {
    look_at_all(scratch.query, allowed, best);
}

void FlatRows::search_batch(std::span<const float> queries, std::size_t k, std::size_t effort, Slot* slots,
                            float* scores, std::size_t* counts, std::size_t threads, const Allowed* allowed) const {
    const std::size_t dimension = options_.dimension;
    check_queries(queries, k, "queries");
    const std::size_t count = queries.size() / dimension;
    // With a sketch a query alone reads so much less that packing the rows pays later.
    const std::size_t many = sketch_ ? many_sketched_queries : many_queries;
    if (!codec_.exact() || fine_ || k > many_hits_max || count < many || threads < 1) {
        SlotIndex::search_batch(queries, k, effort, slots, scores, counts, threads, allowed);
        return;
    }
    AlignedVector<float> prepared(queries.begin(), queries.end());
    normalise(prepared);
    const std::size_t parts = std::min(threads, count / many);
    const Epochs::Guard guard = epochs_.enter();
    const Source source(*this, allowed);
    share_work(parts, parts, 1, [&](std::size_t part) {
        const std::size_t first = count * part / parts;
        const std::size_t end = count * (part + 1) / parts;
        std::vector<TopK> best(end - first, TopK(0));
        for (TopK& top : best) {
            top.reset(k);
        }
        ExactBatch batch(source, options_.metric, dimension);
        batch.search(prepared.data() + first * dimension, end - first, best, k);
        for (std::size_t q = first; q < end; ++q) {
            counts[q] = 0;
            for (const TopK::Candidate& candidate : best[q - first].sorted()) {
                slots[q * k + counts[q]] = static_cast<Slot>(candidate.id);
                scores[q * k + counts[q]++] = score_of(candidate.cost);
            }
        }
    });
}

Hits FlatRows::range_search(std::span<const float> query, float radius, std::size_t effort,
                            const Allowed* allowed) const {
    if (!codec_.exact() || fine_) {
        return SlotIndex::range_search(query, radius, effort, allowed);
    }
    check_queries(query, 1, "query");
    if (query.size() != options_.dimension) {
        throw InvalidArgument("a query must have the dimension " + std::to_string(options_.dimension) + ", got " +
                              std::to_string(query.size()));
    }
    SearchScratch& scratch = scratch_of_thread();
    scratch.values.assign(query.begin(), query.end());
    normalise(scratch.values);
    const Epochs::Guard guard = epochs_.enter();
    codec_.prepare(scratch.values.data(), scratch.query);
    Within within(options_.metric == Metric::l2 ? radius : -radius);
    look_at_all(scratch.query, allowed, within);
    Hits hits;
    for (const TopK::Candidate& candidate : within.sorted()) {
        hits.slots.push_back(static_cast<Slot>(candidate.id));
        hits.scores.push_back(score_of(candidate.cost));
    }
    return hits;
}

}  // namespace

std::unique_ptr<SlotIndex> make_flat_rows(const IndexOptions& options, std::string why) {
    return std::make_unique<FlatRows>(options, std::move(why));
}

}  // namespace sage::vdb
