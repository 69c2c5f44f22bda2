// What the graph index is made of. Internal; see graph_index.hpp for what it promises.
//
// graph_search.cpp walks, graph_build.cpp links, graph_repair.cpp unlinks, graph_partition.cpp keeps the lists of
// searches with a filter, graph_calibration.cpp measures which effort gives which recall, graph_file.cpp saves and
// loads, graph_index.cpp is the face.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "graph_partition.hpp"
#include "graph_transform.hpp"
#include "sage/common/aligned.hpp"
#include "sage/common/codes.hpp"
#include "sage/common/epoch.hpp"
#include "sage/vdb/graph_index.hpp"
#include "slot_array.hpp"

namespace sage::vdb {

// Of graph_file.cpp alone.
struct FileHeader;
class FileReader;

// Ends a row of links that has room left.
constexpr Slot no_slot = ~Slot{0};

// A node met on the way. The mark says that its links were followed.
struct Candidate {
    float cost;
    Slot marked_slot;

    static constexpr Slot mark = Slot{1} << 31U;
    [[nodiscard]] Slot slot() const noexcept { return marked_slot & ~mark; }
    [[nodiscard]] bool followed() const noexcept { return (marked_slot & mark) != 0; }
};

// The best candidates in order of cost, at most as many as asked for, and which of them comes next.
class Pool {
public:
    void reset(std::size_t room) {
        if (entries_.size() < room + 1) {
            entries_.resize(room + 1);
        }
        room_ = room;
        size_ = 0;
        next_ = 0;
    }
    // What a candidate has to be below to enter.
    [[nodiscard]] float limit() const noexcept { return limit_of(size_ == room_); }
    // The place it took; the caller has compared with limit().
    std::size_t insert(float cost, Slot slot);
    // The best one that was not followed, now marked; no_slot when there is none.
    Slot follow_next();
    // The one that would come next, or no_slot.
    [[nodiscard]] Slot peek() const noexcept { return next_ < size_ ? entries_[next_].slot() : no_slot; }
    [[nodiscard]] std::span<const Candidate> candidates() const noexcept { return {entries_.data(), size_}; }
    [[nodiscard]] std::size_t next() const noexcept { return next_; }

private:
    [[nodiscard]] float limit_of(bool full) const noexcept;

    std::vector<Candidate> entries_;
    std::size_t room_ = 0;
    std::size_t size_ = 0;
    std::size_t next_ = 0;
};

// Which slots were met. Cleared in time that the smaller of "met" and "there" takes.
class Visited {
public:
    void reset(std::size_t slots);
    // True the first time.
    bool add(Slot slot) {
        std::uint64_t& word = words_[slot / 64];
        const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
        if ((word & bit) != 0) {
            return false;
        }
        word |= bit;
        met_.push_back(slot);
        return true;
    }
    [[nodiscard]] bool covers(Slot slot) const noexcept { return slot / 64 < words_.size(); }
    [[nodiscard]] std::span<const Slot> met() const noexcept { return met_; }

private:
    std::vector<std::uint64_t> words_;
    std::vector<Slot> met_;
};

// Codes that are on their way from memory, of a search that looks at many.
struct ScanBlock {
    static constexpr std::size_t room = 128;
    std::size_t size = 0;
    std::array<const std::uint8_t*, room> codes;
    std::array<float, room> norms;
    std::array<Slot, room> slots;
};

// How much a search with a filter looks at.
struct ScanLimits {
    bool all;                    // the codes of all allowed slots, and no lists
    std::size_t lists;           // at least so many
    std::size_t codes;           // at least so many, of allowed slots
    std::size_t lists_expected;  // to give so many codes
};

// What one search needs, kept between searches.
struct Context {
    Pool pool;
    Pool near_lists;
    Visited visited;
    CodeQuery query;
    TransformBuffers buffers;
    AlignedVector<float> exact_query;
    std::vector<Slot> batch;
    std::vector<const std::uint8_t*> codes;
    std::vector<std::int32_t> products;
    std::vector<Slot> detours;
    std::array<ScanBlock, 2> blocks;
    std::vector<float> scores;
    std::vector<Candidate> ranked;
    // Of the building threads.
    std::vector<Candidate> followed;
    std::vector<Candidate> found;
    std::vector<Candidate> thinned;
    std::vector<float> occlusion;
    std::vector<Slot> chosen;
    std::vector<Slot> skipped;
};

// The recall of some efforts, for 10 answers.
struct Calibration {
    static constexpr std::size_t steps = 14;
    static constexpr std::array<std::uint32_t, steps> efforts = {10, 13, 16, 20, 26, 32, 40, 52,
                                                                 64, 96, 128, 192, 288, 448};

    std::array<std::atomic<float>, steps> recalls{};  // ascending; the last one is 0 before the first measurement
    // Of the writer alone.
    std::array<std::uint32_t, steps> hits{};
    std::size_t measured = 0;  // queries so far
    std::size_t changes = 0;   // since the last measurement ended
};

// Contexts that are not in use. Taking and giving back never waits.
class ContextPool {
public:
    ContextPool() = default;
    ContextPool(const ContextPool&) = delete;
    ContextPool& operator=(const ContextPool&) = delete;
    ~ContextPool();
    class Lease {
    public:
        explicit Lease(ContextPool& pool) : pool_(pool), context_(pool.take()) {}
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        ~Lease() { pool_.give(std::move(context_)); }
        Context& operator*() const noexcept { return *context_; }

    private:
        ContextPool& pool_;
        std::unique_ptr<Context> context_;
    };

private:
    std::unique_ptr<Context> take();
    void give(std::unique_ptr<Context> context) noexcept;
    std::array<std::atomic<Context*>, 64> free_{};
};

struct GraphIndex::Core {
    enum State : std::uint8_t {
        present = 1,  // holds its slot: a vector, codes, links
        live = 2,     // can be found
        doomed = 4,   // is being unlinked
        locked = 8,   // its links are being changed
    };
    using Links = std::atomic<Slot>;

    Core(std::size_t dimension, Metric metric, const GraphOptions& options);

    const std::size_t dimension;
    const Metric metric;
    const GraphOptions options;
    const std::size_t row_bytes;
    const distance::CodeKernels& kernels;

    // Published in this order: rows and states; then, once trained, transform, codes, norms and links.
    SlotArray<std::byte> rows;
    SlotArray<std::atomic<std::uint8_t>> states;
    std::atomic<Slot> slot_end{0};
    std::atomic<bool> trained{false};
    Transform transform;
    std::unique_ptr<SlotArray<std::uint8_t>> codes;
    std::unique_ptr<SlotArray<float>> norms;
    std::unique_ptr<SlotArray<Links>> links;
    std::atomic<Slot> entry{no_slot};
    std::atomic<const Partition*> partition{nullptr};

    std::atomic<std::size_t> live_count{0};
    std::atomic<std::size_t> removed_count{0};  // of those that are still linked
    mutable Epochs epochs;
    mutable ContextPool contexts;

    Calibration calibration;

    // Of the writer alone.
    struct Retired {
        Slot slot;
        Epochs::Ticket ticket;
    };
    std::vector<Slot> removed;   // not yet doomed
    std::vector<Slot> unlinking; // doomed
    std::size_t bypassed = 0;    // of them, have been linked past
    Slot sweep_at = 0;           // the next node to look at
    bool sweeping = false;
    std::deque<Retired> retired;
    std::vector<Slot> freed;     // for take_free()
    std::unique_ptr<Partition> owned_partition;
    struct RetiredPartition {
        std::unique_ptr<Partition> owned;
        Epochs::Ticket ticket;
    };
    std::deque<RetiredPartition> retired_partitions;

    // --- graph_search.cpp
    std::size_t search(std::span<const float> query, std::size_t k, std::size_t effort, Slot* slots, float* scores,
                       const std::span<const std::uint64_t>* allowed) const;
    void walk(Context& context, std::size_t effort, std::vector<Candidate>* followed) const;
    [[nodiscard]] std::size_t ranked_of(std::size_t k) const;
    [[nodiscard]] ScanLimits plan_scan(std::size_t keep, std::size_t effort, double count, std::size_t words,
                                       const Partition& from) const;
    void scan(Context& context, std::size_t keep, std::size_t effort, const Partition& from,
              std::span<const std::uint64_t> allowed) const;
    class BlockScan;
    void scan_live(Context& context, Slot slot, std::span<const Slot> others) const;
    void scan_all(Context& context, std::span<const std::uint64_t> allowed) const;
    void scan_lists(Context& context, const ScanLimits& limits, const Partition& from,
                    std::span<const std::uint64_t> allowed) const;
    void score_lists(Context& context, const Partition& from) const;
    void sort_lists(Context& context, std::size_t count) const;
    void score_batch(Context& context) const;
    std::size_t rank(Context& context, std::size_t k, Slot* slots, float* scores) const;
    std::size_t search_all(Context& context, std::size_t k, Slot* slots, float* scores,
                           const std::span<const std::uint64_t>* allowed) const;
    void exact_scores(Context& context, std::span<const Slot> of, float* scores) const;
    [[nodiscard]] bool is(Slot slot, std::uint8_t bits) const {
        return (states.row(slot)->load(std::memory_order_acquire) & bits) == bits;
    }
    void prefetch_code(Slot slot) const;

    // --- graph_build.cpp
    void reserve(std::size_t end);
    void store_row(Slot slot, const float* vector);
    void load_row(Slot slot, float* vector) const;
    void insert(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads);
    void train_now(std::size_t threads);
    void link_all(std::span<const Slot> slots, std::size_t threads);
    void link(Context& context, Slot slot);
    bool link_among_equals(Context& context, Slot slot);
    void link_back(Context& context, Slot from, Slot to);
    void query_of(Slot slot, CodeQuery& query) const;
    void measure(Context& context, Slot from, std::vector<Candidate>& found) const;
    void choose(Context& context, std::vector<Candidate>& found, std::size_t count, std::vector<Slot>& chosen) const;
    void write_links(Slot slot, std::span<const Slot> chosen);
    void clear_links(Slot slot);
    void lock(Slot slot);
    void unlock(Slot slot);
    std::size_t remove(std::span<const Slot> slots);
    void begin_sweep();
    void sweep(std::size_t nodes);
    void sweep_all(std::size_t threads);
    void end_sweep();
    void bypass(Context& context, Slot slot);
    void repair(Context& context, Slot slot);
    void candidates_behind(Context& context, Slot slot, std::vector<Candidate>& found) const;
    [[nodiscard]] bool is_hidden(Context& context, const Candidate& candidate, std::span<const Slot> chosen) const;
    void reclaim();
    void choose_entry();
    [[nodiscard]] std::size_t room_after_thinning() const { return options.degree - options.degree / 4; }

    // --- graph_calibration.cpp
    void measure_effort(Context& context, Slot slot, std::span<const Slot> others,
                        std::array<std::uint32_t, Calibration::steps>& hits) const;
    [[nodiscard]] std::size_t calibration_queries() const;
    void calibrate(std::span<const Slot> slots, std::span<const Slot> others, std::size_t threads);
    void calibrate_if_due(std::span<const Slot> slots, std::size_t threads);

    // --- graph_partition.cpp
    [[nodiscard]] std::size_t nearest_centre(Context& context, Slot slot, const Partition& of) const;
    [[nodiscard]] std::unique_ptr<Partition> choose_centres(std::span<const Slot> nodes, std::size_t threads);
    void partition_add(Partition& into, std::span<const Slot> slots, std::size_t threads);
    void partition_all(std::size_t threads);

    // --- graph_file.cpp
    [[nodiscard]] std::vector<std::byte> save() const;
    [[nodiscard]] static std::unique_ptr<Core> load(std::span<const std::byte> bytes);
    void read_graph(FileReader& in, const FileHeader& header, std::span<const Slot> kept, std::size_t lives,
                    std::uint32_t found_version);
};

}  // namespace sage::vdb
