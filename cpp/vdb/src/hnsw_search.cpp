#include <algorithm>
#include <bit>

#include "hnsw_index.hpp"

namespace sage::vdb {
namespace {

// With fewer allowed slots than this, all of them are looked at.
constexpr std::size_t scan_min = 2000;
constexpr std::size_t scan_per_effort = 40;
constexpr std::size_t detour_enough = 32;

void prefetch_bytes(const void* from, std::size_t bytes) {
    for (std::size_t at = 0; at < bytes; at += cache_line_bytes) {
        __builtin_prefetch(static_cast<const char*>(from) + at);
    }
}

}  // namespace

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
            if (walk.costs[i] >= pool.limit()) {
                continue;
            }
            if (pool.insert(walk.costs[i], walk.batch[i]) <= pool.next() && level == 0) {
                prefetch_bytes(lowest_.row(walk.batch[i]), lowest_.stride() * sizeof(Link));
            }
        }
    }
}

// The lowest level over allowed nodes alone; the neighbours of one that is not allowed stand in for it (the idea of
// Patel et al., "ACORN", SIGMOD 2024).
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
    std::size_t bits = size();
    if (allowed != nullptr) {
        bits = 0;
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
    if (best.size() < std::min(best.room(), bits)) {
        // Links change while searches walk over them, and removed nodes hold some: where that has cut off what was
        // wanted, all are looked at.
        best.reset(best.room());
        if (allowed == nullptr) {
            walk.everything.assign((slot_end() + 63) / 64, ~std::uint64_t{0});
        }
        look_at_allowed(scratch, allowed != nullptr ? *allowed : Allowed(walk.everything), best);
    }
}

}  // namespace sage::vdb
