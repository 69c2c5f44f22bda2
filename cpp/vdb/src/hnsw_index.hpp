// Hierarchical navigable small worlds (Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search",
// TPAMI 2020): levels, and neighbours chosen by their heuristic (algorithm 4). The links of the lowest level lie apart
// from the rows; candidates are kept in one sorted pool, as the graph index does. Internal.
//
// Removed nodes are walked over until they are a tenth of all. Then a sweep links all nodes past those that are doomed,
// a few nodes with each change, and at its end nothing leads to the doomed ones.
//
// hnsw_search.cpp walks, hnsw_build.cpp links and unlinks, hnsw_index.cpp is the rest.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph_core.hpp"
#include "slot_index.hpp"

namespace sage::vdb {

class HnswIndex final : public SlotIndex {
public:
    explicit HnswIndex(const IndexOptions& options)
        : SlotIndex(options),
          width_(options_.links),
          rows_((codec_.row_bytes() + 15) / 16 * 16),
          lowest_(2 * width_) {}
    ~HnswIndex() override {
        for (std::size_t slot = 0; slot < node_end_.load(std::memory_order_relaxed); ++slot) {
            delete upper_.row(static_cast<Slot>(slot))->load(std::memory_order_relaxed);
        }
    }

    [[nodiscard]] std::string_view name() const noexcept override { return "hnsw"; }
    [[nodiscard]] std::string explain() const override {
        return "hnsw: asked for; " + std::to_string(size()) + " vectors, " + std::to_string(width_) +
               " links per node and level (" + std::to_string(2 * width_) + " on the lowest of " +
               std::to_string(stats().levels) + "), built with " + std::to_string(options_.build_effort) +
               " candidates, " + storage_text();
    }
    [[nodiscard]] IndexStats stats() const override;

protected:
    void place(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) override;
    void drop(std::span<const Slot> slots) override;
    void tidy(std::size_t threads) override;
    void release(std::span<const Slot> slots) override {
        for (const Slot slot : slots) {
            delete upper_.row(slot)->exchange(nullptr, std::memory_order_relaxed);
        }
    }
    void find(SearchScratch& scratch, std::size_t effort, const Allowed* allowed, TopK& best) const override;
    [[nodiscard]] const std::byte* row_of(Slot slot) const override { return rows_.row(slot); }
    [[nodiscard]] std::size_t kept_bytes() const override {
        return slot_end() * (rows_.stride() + lowest_.stride() * sizeof(Link) + sizeof(void*) + 1);
    }
    [[nodiscard]] bool keeps_removed() const override { return true; }
    void save_more(ByteWriter& out, std::span<const Slot> held) const override;
    void load_rows(IndexReader& in, std::span<const Slot> held, const std::vector<bool>& live,
                   std::span<const std::byte> rows) override;

private:
    using Link = std::atomic<Slot>;

    static constexpr std::size_t level_max = 24;
    static constexpr std::uint64_t no_entry = ~std::uint64_t{0};

    // The links of a node above the lowest level.
    struct Upper {
        Upper(std::size_t level_count, std::size_t width) : levels(level_count), links(level_count * width) {
            for (Link& link : links) {
                link.store(no_slot, std::memory_order_relaxed);
            }
        }
        std::size_t levels;
        std::vector<Link> links;
    };
    struct Walk {
        Pool pool;
        Visited visited;
        std::vector<Slot> batch;
        std::vector<Slot> detours;
        std::vector<const std::byte*> rows;
        std::vector<float> costs;
        std::vector<std::uint64_t> everything;
    };
    // Of a thread that links.
    struct Build {
        RowCodec::Query query;
        RowCodec::Query other;
        AlignedVector<float> vector;
        std::vector<Candidate> found;
        std::vector<Candidate> around;
        std::vector<Slot> candidates;
        std::vector<Slot> chosen;
        std::vector<const std::byte*> chosen_rows;
        std::vector<float> costs;
    };
    // Nodes that are being unlinked, and how far that is.
    struct Sweep {
        std::vector<Slot> slots;  // empty: there is none
        std::vector<bool> doomed;
        std::size_t next = 0;
        std::uint64_t entry = no_entry;  // the highest live node so far
        [[nodiscard]] bool dooms(Slot slot) const { return slot < doomed.size() && doomed[slot]; }
    };

    void reserve_nodes(std::size_t end);
    [[nodiscard]] std::size_t level_of(Slot slot) const {
        const Upper* upper = upper_.row(slot)->load(std::memory_order_acquire);
        return upper == nullptr ? 0 : upper->levels;
    }
    // The links of a node on a level it has.
    [[nodiscard]] std::span<Link> links_of(Slot slot, std::size_t level) const {
        if (level == 0) {
            return {lowest_.row(slot), lowest_.stride()};
        }
        Upper* upper = upper_.row(slot)->load(std::memory_order_acquire);
        return {upper->links.data() + (level - 1) * width_, width_};
    }
    [[nodiscard]] float cost_of(const RowCodec::Query& query, Slot slot) const {
        const std::byte* row = rows_.row(slot);
        float cost = 0.0F;
        codec_.costs(query, &row, 1, &cost);
        return cost;
    }
    void score(const RowCodec::Query& query, Walk& walk) const;
    [[nodiscard]] Slot descend(const RowCodec::Query& query, Slot from, std::size_t level) const;
    void walk_level(const RowCodec::Query& query, Slot from, std::size_t level, std::size_t effort, Walk& walk) const;
    void walk_allowed(const RowCodec::Query& query, Slot from, std::size_t effort, const Allowed& allowed,
                      Walk& walk) const;
    void link(Slot slot, Build& build, Walk& walk);
    void link_back(Slot from, Slot to, std::size_t level, Build& build);
    void choose(std::vector<Candidate>& candidates, std::size_t count, Build& build) const;
    Slot connect(const RowCodec::Query& query, Slot slot, Slot from, std::size_t level, Build& build, Walk& walk);
    void repair(Slot slot, std::size_t level, Build& build);
    void reconnect(Slot slot, std::size_t level, Build& build, Walk& walk);
    void begin_sweep();
    void go_on_sweeping(std::size_t nodes, std::size_t threads);
    void end_sweep();
    [[nodiscard]] std::size_t nodes_per_change(std::size_t slots) const;
    static void write(std::span<Link> links, std::span<const Slot> chosen);
    void lock(Slot slot) {
        std::atomic<std::uint8_t>& held = *locks_.row(slot);
        while (held.exchange(1, std::memory_order_acquire) != 0) {
            while (held.load(std::memory_order_relaxed) != 0) {
            }
        }
    }
    void unlock(Slot slot) { locks_.row(slot)->store(0, std::memory_order_release); }
    [[nodiscard]] std::uint64_t find_entry() const;
    static Walk& walk_of_thread() {
        thread_local Walk walk;
        return walk;
    }

    const std::size_t width_;
    SlotArray<std::byte> rows_;
    SlotArray<Link> lowest_;
    SlotArray<std::atomic<Upper*>> upper_{1};
    SlotArray<std::atomic<std::uint8_t>> locks_{1};
    std::atomic<std::size_t> node_end_{0};
    std::atomic<std::uint64_t> entry_{no_entry};  // its level and slot
    std::mutex entry_mutex_;
    // Of the writer alone.
    std::vector<Slot> removed_;  // that no sweep has taken up
    Sweep sweep_;
};

}  // namespace sage::vdb
