// An approximate index: a graph over 8-bit codes, and exact scores of the best candidates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sage/vdb/metric.hpp"
#include "sage/vdb/slot_set.hpp"

namespace sage::vdb {

// How the vectors that give the final scores are kept.
enum class RowFormat : std::uint32_t { float32, float16, bfloat16 };

[[nodiscard]] std::string_view row_format_name(RowFormat format) noexcept;
// Throws InvalidArgument for an unknown name.
[[nodiscard]] RowFormat row_format_from_name(std::string_view name);

struct GraphOptions {
    // A node is linked to at most `degree` others; a full node is thinned out to about 3/4 of that.
    std::uint32_t degree = 64;
    // Candidates that the search for a new node's neighbours keeps.
    std::uint32_t build_effort = 80;
    // A link is left out when another one leads to its end by a way this much shorter (squared distances).
    float alpha = 1.2F;
    RowFormat rows = RowFormat::float16;
    // Dimension of the codes; 0 chooses: below the vectors' own when they lie near a surface of fewer dimensions.
    std::uint32_t code_dimension = 0;
    // Removed nodes are unlinked once they are this share of all.
    float removed_share_max = 0.1F;
};

// What a search found, best first: slots[i] has scores[i].
struct GraphHits {
    std::vector<Slot> slots;
    std::vector<float> scores;
};

struct GraphStats {
    std::size_t size = 0;           // vectors that a search can find
    std::size_t removed = 0;        // removed ones that still hold their slot
    std::size_t links = 0;
    std::size_t code_dimension = 0;  // 0: too few vectors so far, every search looks at all
    std::size_t memory_bytes = 0;
    float code_energy = 1.0F;  // share of the variance that the codes keep
};

// A Vamana graph (Jayaram Subramanya et al., "DiskANN", NeurIPS 2019) whose traversal reads 8-bit codes only: of the
// vectors themselves, or, where that loses little, of their projection onto their principal components (Tepper et
// al., "LeanVec", TMLR 2024). The best candidates are scored again with the stored rows.
//
// Scores: cosine and inner_product, higher is better; l2 gives the squared distance, lower is better. They come from
// the rows as stored: with float16 or bfloat16 rows they carry the rounding of that format. Under cosine a zero
// vector is allowed and scores 0. float16 rows hold values up to 65504.
//
// What it learns, it learns from the vectors it holds after the insert that brings it to train_size: the mean, the
// range of the values, the projection (which needs a sample larger than its dimension, so fill a new index with one
// large insert), and for inner_product the greatest length. Vectors that come later and are unlike those cost recall,
// never correctness of scores.
//
// A search with a filter does not walk: it looks at the codes of all allowed slots, or, where these are many, of those in
// the lists whose centres are nearest to the query (an inverted file over the same codes), going on to further lists
// until it has met enough allowed ones. So a filter that has nothing to do with the query costs time, not recall.
//
// Removal: a removed slot is found no more at once. Searches still walk over it until enough were removed; then its
// neighbours are linked past it, a few with each change (in the manner of Singh et al., "FreshDiskANN", 2021), and
// when nothing leads to it any more and the readers of then have left, the slot is free and take_free() names it.
//
// Threads: any number of searches, which never block nor wait, and one change at a time, which the owner sees to.
// A search that begins after a change returned sees it. insert() of many uses more threads inside.
// Errors are InvalidArgument; a call that throws it has changed nothing.
class GraphIndex {
public:
    static constexpr std::size_t dimension_max = 16384;
    static constexpr Slot slot_max = (Slot{1} << 31U) - 2U;
    // Below that many vectors nothing is learned and no graph is built.
    static constexpr std::size_t train_size = 1000;

    GraphIndex(std::size_t dimension, Metric metric, const GraphOptions& options = {});
    ~GraphIndex();
    GraphIndex(GraphIndex&&) noexcept;
    GraphIndex& operator=(GraphIndex&&) noexcept;

    // Adds vectors, given row after row, under slots that are free.
    void insert(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads = 1);
    // Returns how many of them there were.
    std::size_t remove(std::span<const Slot> slots);
    // Does now what is left to do about removed slots.
    void consolidate(std::size_t threads = 1);
    // Slots that were removed and may be used again since the last call. Also insert() accepts them.
    [[nodiscard]] std::vector<Slot> take_free();

    // The best of `query`: min(k, what is there and allowed) hits, unless the graph hides one. A larger effort, the
    // number of candidates kept, finds more of the true neighbours and takes longer; it is at least k.
    // `allowed`: bit i % 64 of word i / 64 allows slot i, slots behind the end are not allowed; absent: all are.
    [[nodiscard]] GraphHits search(std::span<const float> query, std::size_t k, std::size_t effort) const;
    [[nodiscard]] GraphHits search(std::span<const float> query, std::size_t k, std::size_t effort,
                                   std::span<const std::uint64_t> allowed) const;
    // The same into the caller's memory, k of each, without allocating; returns the number of hits.
    std::size_t search(std::span<const float> query, std::size_t k, std::size_t effort, Slot* slots, float* scores,
                       const std::span<const std::uint64_t>* allowed = nullptr) const;

    // The effort that finds about that share of the true best k, measured with vectors that came; 0: not known yet.
    // Measured when the graph is built and, by vectors on their way in, when a fifth of it has changed.
    [[nodiscard]] std::size_t effort_for(double recall, std::size_t k) const;

    // How a search goes about a filter that allows so many slots, in words.
    [[nodiscard]] std::string explain_filter(std::size_t allowed, std::size_t k, std::size_t effort) const;

    // Many queries, row after row, on so many threads: k slots and scores of each, and how many of them are hits.
    void search_batch(std::span<const float> queries, std::size_t k, std::size_t effort, Slot* slots, float* scores,
                      std::size_t* counts, std::size_t threads,
                      const std::span<const std::uint64_t>* allowed = nullptr) const;

    [[nodiscard]] bool contains(Slot slot) const;
    // The vector as it is stored: rounded to the format of the rows, of length 1 under cosine. False for no such slot.
    bool get(Slot slot, std::span<float> vector) const;
    [[nodiscard]] std::size_t size() const;
    [[nodiscard]] std::size_t dimension() const noexcept;
    [[nodiscard]] Metric metric() const noexcept;
    [[nodiscard]] const GraphOptions& options() const noexcept;
    [[nodiscard]] GraphStats stats() const;

    // The whole index in one block of bytes, of a versioned format; not during a change.
    [[nodiscard]] std::vector<std::byte> save() const;
    // Everything is checked: bytes that save() did not write are InvalidArgument, whatever they are.
    [[nodiscard]] static GraphIndex load(std::span<const std::byte> bytes);

private:
    struct Core;
    explicit GraphIndex(std::unique_ptr<Core> core);
    std::unique_ptr<Core> core_;
};

}  // namespace sage::vdb
