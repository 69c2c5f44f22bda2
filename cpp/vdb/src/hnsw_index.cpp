// Hierarchical navigable small worlds (Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search",
// TPAMI 2020): levels, and neighbours chosen by their heuristic (algorithm 4). The links of the lowest level lie apart
// from the rows; candidates are kept in one sorted pool, as the graph index does.
//
// Removed nodes are walked over until they are a tenth of all; then their neighbours are linked among each other.
#include <algorithm>
#include <bit>
#include <cmath>
#include <mutex>
#include <string>

#include "graph_core.hpp"
#include "sage/common/error.hpp"
#include "slot_index.hpp"

namespace sage::vdb {
namespace {

using Link = std::atomic<Slot>;

constexpr std::size_t level_max = 24;
// Nodes that are linked one after the other before threads share the work: they would not find each other.
constexpr std::size_t linked_first = 256;
// With fewer allowed slots than this, all of them are looked at.
constexpr std::size_t scan_min = 2000;
constexpr std::size_t scan_per_effort = 40;
constexpr std::size_t detour_enough = 32;
constexpr std::uint64_t no_entry = ~std::uint64_t{0};

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
};

// Of a thread that links.
struct Build {
    RowCodec::Query query;
    RowCodec::Query other;
    AlignedVector<float> vector;
    std::vector<Candidate> found;
    std::vector<Candidate> around;
    std::vector<Slot> chosen;
    std::vector<const std::byte*> chosen_rows;
    std::vector<float> costs;
};

void prefetch_bytes(const void* from, std::size_t bytes) {
    for (std::size_t at = 0; at < bytes; at += cache_line_bytes) {
        __builtin_prefetch(static_cast<const char*>(from) + at);
    }
}

bool nearer(const Candidate& a, const Candidate& b) { return a.cost != b.cost ? a.cost < b.cost : a.slot() < b.slot(); }

class HnswIndex final : public SlotIndex {
public:
    explicit HnswIndex(const IndexOptions& options)
        : SlotIndex(options), width_(options_.links), rows_((codec_.row_bytes() + 15) / 16 * 16), lowest_(2 * width_) {}
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
    void load_rows(ByteReader& in, std::span<const Slot> held, const std::vector<bool>& live,
                   std::span<const std::byte> rows) override;

private:
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
    void repair(Slot slot, std::size_t level, const std::vector<bool>& doomed, Build& build);
    static void write(std::span<Link> links, std::span<const Slot> chosen);
    void lock(Slot slot) {
        std::atomic<std::uint8_t>& held = *locks_.row(slot);
        while (held.exchange(1, std::memory_order_acquire) != 0) {
            while (held.load(std::memory_order_relaxed) != 0) {
            }
        }
    }
    void unlock(Slot slot) { locks_.row(slot)->store(0, std::memory_order_release); }
    void choose_entry(const std::vector<bool>& doomed);
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
    std::vector<Slot> removed_;
};

void HnswIndex::reserve_nodes(std::size_t end) {
    rows_.reserve(end, [](std::byte*, std::size_t) {});
    lowest_.reserve(end, [](Link* links, std::size_t count) {
        std::uninitialized_fill_n(reinterpret_cast<Slot*>(links), count, no_slot);
    });
    upper_.reserve(end, [](auto* pointers, std::size_t count) { std::uninitialized_value_construct_n(pointers, count); });
    locks_.reserve(end, [](auto* locks, std::size_t count) { std::uninitialized_value_construct_n(locks, count); });
    if (end > node_end_.load(std::memory_order_relaxed)) {
        node_end_.store(end, std::memory_order_release);
    }
}

void HnswIndex::write(std::span<Link> links, std::span<const Slot> chosen) {
    for (std::size_t i = 0; i < links.size(); ++i) {
        links[i].store(i < chosen.size() ? chosen[i] : no_slot, std::memory_order_release);
    }
}

// Costs of walk.batch.
void HnswIndex::score(const RowCodec::Query& query, Walk& walk) const {
    walk.rows.resize(walk.batch.size());
    walk.costs.resize(walk.batch.size());
    for (std::size_t i = 0; i < walk.batch.size(); ++i) {
        walk.rows[i] = rows_.row(walk.batch[i]);
    }
    codec_.costs(query, walk.rows.data(), walk.batch.size(), walk.costs.data());
}

// The nearest node that steps to ever nearer neighbours on a level above the lowest reach.
Slot HnswIndex::descend(const RowCodec::Query& query, Slot from, std::size_t level) const {
    Slot at = from;
    float cost = cost_of(query, at);
    for (bool moved = true; moved;) {
        moved = false;
        for (const Link& link : links_of(at, level)) {
            const Slot next = link.load(std::memory_order_acquire);
            if (next == no_slot) {
                break;
            }
            const float next_cost = cost_of(query, next);
            if (next_cost < cost) {
                cost = next_cost;
                from = next;
                moved = true;
            }
        }
        at = from;
    }
    return at;
}

void HnswIndex::walk_level(const RowCodec::Query& query, Slot from, std::size_t level, std::size_t effort,
                           Walk& walk) const {
    Pool& pool = walk.pool;
    pool.reset(effort);
    walk.visited.reset(node_end_.load(std::memory_order_acquire));
    walk.batch.assign(1, from);
    walk.visited.add(from);
    score(query, walk);
    pool.insert(walk.costs[0], from);
    for (Slot slot = pool.follow_next(); slot != no_slot; slot = pool.follow_next()) {
        walk.batch.clear();
        for (const Link& link : links_of(slot, level)) {
            const Slot next = link.load(std::memory_order_acquire);
            if (next == no_slot) {
                break;
            }
            // A node may be linked that came after this search began and that it has no room to mark.
            if (walk.visited.covers(next) && walk.visited.add(next)) {
                prefetch_bytes(rows_.row(next), rows_.stride());
                walk.batch.push_back(next);
            }
        }
        if (const Slot next = pool.peek(); next != no_slot && level == 0) {
            prefetch_bytes(lowest_.row(next), lowest_.stride() * sizeof(Link));
        }
        score(query, walk);
        for (std::size_t i = 0; i < walk.batch.size(); ++i) {
            if (walk.costs[i] < pool.limit() && pool.insert(walk.costs[i], walk.batch[i]) <= pool.next() && level == 0) {
                prefetch_bytes(lowest_.row(walk.batch[i]), lowest_.stride() * sizeof(Link));
            }
        }
    }
}

// The lowest level over allowed nodes alone; the neighbours of one that is not allowed stand in for it (the idea of Patel
// et al., "ACORN", SIGMOD 2024).
void HnswIndex::walk_allowed(const RowCodec::Query& query, Slot from, std::size_t effort, const Allowed& allowed,
                             Walk& walk) const {
    Pool& pool = walk.pool;
    pool.reset(effort);
    walk.visited.reset(node_end_.load(std::memory_order_acquire));
    walk.batch.clear();
    const auto visit = [&](Slot slot) {
        if (walk.visited.covers(slot) && walk.visited.add(slot) && is_live(slot)) {
            prefetch_bytes(rows_.row(slot), rows_.stride());
            walk.batch.push_back(slot);
        }
    };
    if (is_allowed(allowed, from)) {
        visit(from);
    }
    for (Slot slot = from; slot != no_slot; slot = pool.follow_next()) {
        walk.detours.clear();
        for (const Link& link : links_of(slot, 0)) {
            const Slot next = link.load(std::memory_order_acquire);
            if (next == no_slot) {
                break;
            }
            if (is_allowed(allowed, next)) {
                visit(next);
            } else {
                prefetch_bytes(lowest_.row(next), lowest_.stride() * sizeof(Link));
                walk.detours.push_back(next);
            }
        }
        for (std::size_t i = 0; i < walk.detours.size() && walk.batch.size() < detour_enough; ++i) {
            for (const Link& link : links_of(walk.detours[i], 0)) {
                const Slot next = link.load(std::memory_order_acquire);
                if (next == no_slot) {
                    break;
                }
                if (is_allowed(allowed, next)) {
                    visit(next);
                }
            }
        }
        score(query, walk);
        for (std::size_t i = 0; i < walk.batch.size(); ++i) {
            if (walk.costs[i] < pool.limit()) {
                pool.insert(walk.costs[i], walk.batch[i]);
            }
        }
        walk.batch.clear();
    }
}

void HnswIndex::find(SearchScratch& scratch, std::size_t effort, const Allowed* allowed, TopK& best) const {
    const std::uint64_t entry = entry_.load(std::memory_order_acquire);
    if (entry == no_entry) {
        return;
    }
    const std::size_t kept = std::max(effort, best.room());
    if (allowed != nullptr) {
        std::size_t bits = 0;
        for (const std::uint64_t word : *allowed) {
            bits += static_cast<std::size_t>(std::popcount(word));
        }
        if (bits <= std::max(scan_min, scan_per_effort * kept)) {
            look_at_allowed(scratch, *allowed, best);
            return;
        }
    }
    auto at = static_cast<Slot>(entry);
    for (std::size_t level = entry >> 32U; level > 0; --level) {
        at = descend(scratch.query, at, level);
    }
    Walk& walk = walk_of_thread();
    if (allowed != nullptr) {
        walk_allowed(scratch.query, at, kept, *allowed, walk);
    } else {
        walk_level(scratch.query, at, 0, kept, walk);
    }
    for (const Candidate& candidate : walk.pool.candidates()) {
        if (is_live(candidate.slot())) {
            best.push(candidate.cost, candidate.slot());
        }
    }
}

// The heuristic: a candidate is left out when one that was chosen is nearer to it than the node itself is. Candidates are
// sorted by then; what was chosen is in build.chosen.
void HnswIndex::choose(std::vector<Candidate>& candidates, std::size_t count, Build& build) const {
    std::sort(candidates.begin(), candidates.end(), nearer);
    build.chosen.clear();
    build.chosen_rows.clear();
    build.vector.resize(options_.dimension);
    for (const Candidate& candidate : candidates) {
        if (build.chosen.size() == count) {
            return;
        }
        const std::byte* row = rows_.row(candidate.slot());
        if (!build.chosen.empty()) {
            codec_.decode(row, build.vector.data());
            codec_.prepare(build.vector.data(), build.other);
            build.costs.resize(build.chosen.size());
            codec_.costs(build.other, build.chosen_rows.data(), build.chosen.size(), build.costs.data());
            if (std::any_of(build.costs.begin(), build.costs.end(), [&](float x) { return x < candidate.cost; })) {
                continue;
            }
        }
        build.chosen.push_back(candidate.slot());
        build.chosen_rows.push_back(row);
    }
}

void HnswIndex::link_back(Slot from, Slot to, std::size_t level, Build& build) {
    lock(from);
    const std::span<Link> links = links_of(from, level);
    std::size_t used = 0;
    bool known = false;
    for (; used < links.size(); ++used) {
        const Slot slot = links[used].load(std::memory_order_relaxed);
        if (slot == no_slot) {
            break;
        }
        known = known || slot == to;
    }
    if (!known && used < links.size()) {
        links[used].store(to, std::memory_order_release);
    } else if (!known) {
        build.vector.resize(options_.dimension);
        codec_.decode(rows_.row(from), build.vector.data());
        codec_.prepare(build.vector.data(), build.query);
        build.around.clear();
        build.around.push_back({cost_of(build.query, to), to});
        for (const Link& link : links) {
            const Slot slot = link.load(std::memory_order_relaxed);
            build.around.push_back({cost_of(build.query, slot), slot});
        }
        choose(build.around, links.size(), build);
        write(links, build.chosen);
    }
    unlock(from);
}

void HnswIndex::link(Slot slot, Build& build, Walk& walk) {
    const std::size_t level = level_of(slot);
    const std::uint64_t entry = entry_.load(std::memory_order_acquire);
    if (entry != no_entry) {
        const std::size_t top = entry >> 32U;
        auto at = static_cast<Slot>(entry);
        build.vector.resize(options_.dimension);
        codec_.decode(rows_.row(slot), build.vector.data());
        RowCodec::Query query;
        codec_.prepare(build.vector.data(), query);
        for (std::size_t above = top; above > level; --above) {
            at = descend(query, at, above);
        }
        for (std::size_t here = std::min(level, top) + 1; here-- > 0;) {
            walk_level(query, at, here, options_.build_effort, walk);
            build.found.clear();
            for (const Candidate& candidate : walk.pool.candidates()) {
                // Nodes of this batch are not live yet and count; removed ones do not.
                if (candidate.slot() != slot && (is_live(candidate.slot()) || !is_held(candidate.slot()))) {
                    build.found.push_back({candidate.cost, candidate.slot()});
                }
            }
            if (!walk.pool.candidates().empty()) {
                at = walk.pool.candidates().front().slot();
            }
            choose(build.found, width_, build);
            const std::vector<Slot> neighbours = build.chosen;
            lock(slot);
            // Others may have linked to it meanwhile; their links are kept where there is room.
            std::vector<Slot> all = neighbours;
            const std::span<Link> links = links_of(slot, here);
            for (const Link& link : links) {
                const Slot other = link.load(std::memory_order_relaxed);
                if (other != no_slot && all.size() < links.size() &&
                    std::find(all.begin(), all.end(), other) == all.end()) {
                    all.push_back(other);
                }
            }
            write(links, all);
            unlock(slot);
            for (const Slot neighbour : neighbours) {
                link_back(neighbour, slot, here, build);
            }
        }
        if (level <= top) {
            return;
        }
    }
    const std::lock_guard guard(entry_mutex_);
    const std::uint64_t now = entry_.load(std::memory_order_relaxed);
    if (now == no_entry || now >> 32U < level) {
        entry_.store(std::uint64_t{level} << 32U | slot, std::memory_order_release);
    }
}

void HnswIndex::place(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) {
    reserve_nodes(std::size_t{*std::max_element(slots.begin(), slots.end())} + 1);
    const double scale = 1.0 / std::log(static_cast<double>(width_));
    for (std::size_t i = 0; i < slots.size(); ++i) {
        const Slot slot = slots[i];
        codec_.encode(vectors.data() + i * options_.dimension, rows_.row(slot));
        // A level from the slot's number: the same index from the same input on one thread.
        std::uint64_t mixed = (slot + 1) * 0x9E3779B97F4A7C15ULL;
        mixed = (mixed ^ (mixed >> 32U)) * 0xD6E8FEB86659FD93ULL;
        mixed ^= mixed >> 32U;
        const double uniform = (static_cast<double>(mixed >> 11U) + 1.0) / 9007199254740993.0;
        const std::size_t level = std::min(level_max, static_cast<std::size_t>(-std::log(uniform) * scale));
        upper_.row(slot)->store(level == 0 ? nullptr : new Upper(level, width_), std::memory_order_release);
        write(links_of(slot, 0), {});
    }
    const auto link_one = [&](std::size_t i) {
        thread_local Build build;
        link(slots[i], build, walk_of_thread());
    };
    const std::size_t first =
        entry_.load(std::memory_order_relaxed) == no_entry ? std::min(slots.size(), linked_first) : 0;
    for (std::size_t i = 0; i < first; ++i) {
        link_one(i);
    }
    share_work(slots.size() - first, threads, 8, [&](std::size_t i) { link_one(first + i); });
}

void HnswIndex::drop(std::span<const Slot> slots) {
    removed_.insert(removed_.end(), slots.begin(), slots.end());
    const auto held = static_cast<float>(held_count_.load(std::memory_order_relaxed));
    if (static_cast<float>(removed_.size()) > options_.removed_share_max * held) {
        tidy(1);
    }
}

// Links a node past its doomed neighbours: to theirs.
void HnswIndex::repair(Slot slot, std::size_t level, const std::vector<bool>& doomed, Build& build) {
    const std::span<Link> links = links_of(slot, level);
    std::vector<Slot> candidates;
    bool needed = false;
    for (const Link& link : links) {
        const Slot next = link.load(std::memory_order_relaxed);
        if (next == no_slot) {
            break;
        }
        if (!doomed[next]) {
            candidates.push_back(next);
            continue;
        }
        needed = true;
        for (const Link& further : links_of(next, level)) {
            const Slot beyond = further.load(std::memory_order_relaxed);
            if (beyond == no_slot) {
                break;
            }
            if (!doomed[beyond] && beyond != slot) {
                candidates.push_back(beyond);
            }
        }
    }
    if (!needed) {
        return;
    }
    std::sort(candidates.begin(), candidates.end());
    candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
    build.vector.resize(options_.dimension);
    codec_.decode(rows_.row(slot), build.vector.data());
    codec_.prepare(build.vector.data(), build.query);
    build.around.clear();
    for (const Slot candidate : candidates) {
        build.around.push_back({cost_of(build.query, candidate), candidate});
    }
    choose(build.around, links.size(), build);
    write(links, build.chosen);
}

void HnswIndex::choose_entry(const std::vector<bool>& doomed) {
    std::uint64_t best = no_entry;
    for (std::size_t i = 0; i < slot_end(); ++i) {
        const auto slot = static_cast<Slot>(i);
        if (is_held(slot) && !doomed[slot]) {
            const std::uint64_t level = level_of(slot);
            if (best == no_entry || level > best >> 32U) {
                best = level << 32U | slot;
            }
        }
    }
    entry_.store(best, std::memory_order_release);
}

void HnswIndex::tidy(std::size_t threads) {
    if (removed_.empty()) {
        return;
    }
    const std::size_t end = node_end_.load(std::memory_order_relaxed);
    std::vector<bool> doomed(end, false);
    for (const Slot slot : removed_) {
        doomed[slot] = true;
    }
    share_work(slot_end(), threads, 64, [&](std::size_t i) {
        thread_local Build build;
        const auto slot = static_cast<Slot>(i);
        if (is_live(slot)) {
            for (std::size_t level = 0; level <= level_of(slot); ++level) {
                repair(slot, level, doomed, build);
            }
        }
    });
    const std::uint64_t entry = entry_.load(std::memory_order_relaxed);
    if (entry != no_entry && doomed[static_cast<Slot>(entry)]) {
        choose_entry(doomed);
    }
    retire(removed_);
    removed_.clear();
}

IndexStats HnswIndex::stats() const {
    IndexStats stats = SlotIndex::stats();
    const Epochs::Guard guard = epochs_.enter();
    for (std::size_t i = 0; i < slot_end(); ++i) {
        const auto slot = static_cast<Slot>(i);
        if (!is_live(slot)) {
            continue;
        }
        const std::size_t level = level_of(slot);
        stats.memory_bytes += level == 0 ? 0 : sizeof(Upper) + level * width_ * sizeof(Link);
        stats.levels = std::max(stats.levels, level + 1);
        for (const Link& link : links_of(slot, 0)) {
            stats.links += link.load(std::memory_order_relaxed) != no_slot ? 1 : 0;
        }
    }
    return stats;
}

// The entry; then of each node its number of upper levels and its links, the lowest level first.
void HnswIndex::save_more(ByteWriter& out, std::span<const Slot> held) const {
    out.put(entry_.load(std::memory_order_relaxed));
    for (const Slot slot : held) {
        const std::size_t levels = level_of(slot);
        out.put(static_cast<std::uint8_t>(levels));
        for (std::size_t level = 0; level <= levels; ++level) {
            for (const Link& link : links_of(slot, level)) {
                out.put(link.load(std::memory_order_relaxed));
            }
        }
    }
}

void HnswIndex::load_rows(ByteReader& in, std::span<const Slot> held, const std::vector<bool>& live,
                          std::span<const std::byte> rows) {
    const auto entry = in.get<std::uint64_t>();
    const std::size_t end = held.empty() ? 0 : std::size_t{held.back()} + 1;
    const std::size_t bytes = codec_.row_bytes();
    in.require_left(held.size(), 1 + 2 * width_ * sizeof(Slot));
    reserve_nodes(end);
    std::vector<bool> there(end, false);
    std::vector<Slot> links;
    for (std::size_t i = 0; i < held.size(); ++i) {
        std::copy_n(rows.data() + i * bytes, bytes, rows_.row(held[i]));
        there[held[i]] = true;
        const auto levels = std::size_t{in.get<std::uint8_t>()};
        require_bytes(levels <= level_max, "a node has too many levels");
        if (levels != 0) {
            in.require_left(levels * width_, sizeof(Slot));
            upper_.row(held[i])->store(new Upper(levels, width_), std::memory_order_relaxed);
        }
        for (std::size_t level = 0; level <= levels; ++level) {
            const std::span<Link> to = links_of(held[i], level);
            links.resize(to.size());
            in.get(links.data(), links.size());
            const auto used = std::find(links.begin(), links.end(), no_slot);
            require_bytes(std::all_of(used, links.end(), [](Slot x) { return x == no_slot; }), "a row of links has a gap");
            write(to, {links.begin(), used});
        }
        if (!live[i]) {
            removed_.push_back(held[i]);
        }
    }
    for (const Slot slot : held) {
        for (std::size_t level = 0; level <= level_of(slot); ++level) {
            for (const Link& link : links_of(slot, level)) {
                const Slot to = link.load(std::memory_order_relaxed);
                require_bytes(to == no_slot || (to < end && there[to] && to != slot && level_of(to) >= level),
                              "a link leads to no node of its level");
            }
        }
    }
    if (entry == no_entry) {
        require_bytes(removed_.size() == held.size(), "it has no entry");
    } else {
        const auto slot = static_cast<Slot>(entry);
        require_bytes(slot < end && there[slot] && level_of(slot) == entry >> 32U, "its entry is not a node");
    }
    entry_.store(entry, std::memory_order_relaxed);
}

}  // namespace

std::unique_ptr<SlotIndex> make_hnsw_index(const IndexOptions& options) {
    return std::make_unique<HnswIndex>(options);
}

}  // namespace sage::vdb
