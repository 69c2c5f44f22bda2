// What all indexes over slots have in common, and how one is made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sage/vdb/graph_index.hpp"
#include "sage/vdb/metric.hpp"
#include "sage/vdb/row_store.hpp"

namespace sage::vdb {

// What a search found, best first: slots[i] has scores[i].
using Hits = GraphHits;
// Bit i % 64 of word i / 64 allows slot i; slots behind the end are not allowed.
using Allowed = std::span<const std::uint64_t>;

struct IndexStats {
    std::size_t size = 0;          // vectors that a search can find
    std::size_t removed = 0;       // removed ones that still hold their slot
    std::size_t memory_bytes = 0;  // rows, links and lists that are in use
    std::size_t links = 0;         // graph, hnsw
    std::size_t lists = 0;         // ivf_flat
    std::size_t levels = 0;        // hnsw
};

// Vectors by slot, and the nearest of them to a query.
//
// Scores: cosine and inner_product, higher is better; l2 gives the squared distance, lower is better. They are those of
// the rows as stored. Equal scores are ordered by ascending slot. Under cosine rows are brought to length 1, a zero
// vector is allowed and scores 0.
//
// A slot is free until insert(), and again once it was removed and the readers of then have left: take_free() names
// it. Vectors must be finite and not longer than 6.5e18.
//
// Threads: any number of searches, which never block nor wait, and one change at a time, which the owner sees to
// (insert, remove, consolidate, take_free, save). A search that begins after a change returned sees it.
// Errors are InvalidArgument; a call that throws it has changed nothing.
class Index {
public:
    Index() = default;
    Index(const Index&) = delete;
    Index& operator=(const Index&) = delete;
    virtual ~Index() = default;

    // Adds vectors, given row after row, under slots that are free.
    virtual void insert(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads = 1) = 0;
    // Returns how many of them there were.
    virtual std::size_t remove(std::span<const Slot> slots) = 0;
    // Does now what is left to do about removed slots.
    virtual void consolidate(std::size_t threads = 1) = 0;
    // Slots that were removed and may be used again since the last call. Also insert() accepts them.
    [[nodiscard]] virtual std::vector<Slot> take_free() = 0;

    // The best of `query`, at most k; returns how many. `effort` is what the kind makes of it, see make_index():
    // more finds more of the true neighbours and takes longer.
    virtual std::size_t search(std::span<const float> query, std::size_t k, std::size_t effort, Slot* slots,
                               float* scores, const Allowed* allowed = nullptr) const = 0;
    // Many queries, row after row, on so many threads: k slots and scores of each, and how many of them are hits.
    virtual void search_batch(std::span<const float> queries, std::size_t k, std::size_t effort, Slot* slots,
                              float* scores, std::size_t* counts, std::size_t threads,
                              const Allowed* allowed = nullptr) const = 0;
    // All that score at least `radius` (l2: at most), best first; approximate kinds may miss some.
    [[nodiscard]] virtual Hits range_search(std::span<const float> query, float radius, std::size_t effort,
                                            const Allowed* allowed = nullptr) const = 0;
    [[nodiscard]] Hits search(std::span<const float> query, std::size_t k, std::size_t effort) const;
    [[nodiscard]] Hits search(std::span<const float> query, std::size_t k, std::size_t effort, Allowed allowed) const;

    // The effort that finds about that share of the true best k, if the index has measured it; 0: it has not.
    [[nodiscard]] virtual std::size_t effort_for(double recall, std::size_t k) const;

    // How a search goes about a filter that allows so many slots, in words.
    [[nodiscard]] virtual std::string explain_filter(std::size_t allowed, std::size_t k, std::size_t effort) const;

    [[nodiscard]] virtual bool contains(Slot slot) const = 0;
    // The vector as it is stored, in the most exact form there is. False for no such slot.
    virtual bool get(Slot slot, std::span<float> vector) const = 0;
    [[nodiscard]] virtual std::size_t size() const = 0;
    [[nodiscard]] virtual std::size_t dimension() const noexcept = 0;
    [[nodiscard]] virtual Metric metric() const noexcept = 0;
    [[nodiscard]] virtual IndexStats stats() const = 0;
    // flat, hnsw, ivf_flat or graph.
    [[nodiscard]] virtual std::string_view name() const noexcept = 0;
    // One sentence: why this kind, and with which numbers.
    [[nodiscard]] virtual std::string explain() const = 0;
    // The whole index in one block of bytes, of a versioned format; not during a change.
    [[nodiscard]] virtual std::vector<std::byte> save() const = 0;
};

enum class IndexKind : std::uint32_t { automatic, flat, hnsw, ivf_flat, graph };

[[nodiscard]] std::string_view index_kind_name(IndexKind kind) noexcept;
// "auto" is automatic. Throws InvalidArgument for an unknown name.
[[nodiscard]] IndexKind index_kind_from_name(std::string_view name);

struct IndexOptions {
    std::size_t dimension = 0;
    Metric metric = Metric::cosine;
    IndexKind kind = IndexKind::automatic;
    // How many vectors are expected; automatic goes by it. 0: unknown, expect many.
    std::size_t expected_size = 0;
    // flat, hnsw and ivf_flat: the form that a search reads. graph has its own codes; it takes from `storage` the
    // form of its rows, if that is one of the first three.
    Storage storage = Storage::float32;
    // A second form of each row, from which the best candidates are scored again. Absent: float16 with int4 and
    // bit1, none with the others.
    std::optional<Storage> rerank;
    // int4 and bit1: candidates that are scored again, per hit asked for. 0 chooses: 4 and 16.
    std::uint32_t rerank_factor = 0;
    // ivf_flat: lists at the beginning; 0 chooses 2 sqrt(n).
    std::uint32_t lists = 0;
    // hnsw: links per node and level (twice that on the lowest), and candidates while linking.
    std::uint32_t links = 16;
    std::uint32_t build_effort = 100;
    // hnsw: removed nodes are unlinked once they are this share of all.
    float removed_share_max = 0.1F;
    GraphOptions graph;
};

// effort: hnsw and graph the number of candidates kept, ivf_flat the number of lists looked at, flat nothing.
// automatic is flat where a search of all takes no longer than one of the graph, and graph above.
[[nodiscard]] std::unique_ptr<Index> make_index(const IndexOptions& options);

// What any kind's save() gave. Everything is checked: other bytes are InvalidArgument, whatever they are.
[[nodiscard]] std::unique_ptr<Index> load_index(std::span<const std::byte> bytes);

}  // namespace sage::vdb
