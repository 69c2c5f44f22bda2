#include <algorithm>
#include <cmath>

#include "hnsw_index.hpp"

namespace sage::vdb {
namespace {

// Nodes that are linked one after the other before threads share the work: they would not find each other.
constexpr std::size_t linked_first = 256;
// With fewer neighbours to choose from than that a node looks further.
constexpr std::size_t few_neighbours = 4;

bool nearer(const Candidate& a, const Candidate& b) { return a.cost != b.cost ? a.cost < b.cost : a.slot() < b.slot(); }

}  // namespace

void HnswIndex::write(std::span<Link> links, std::span<const Slot> chosen) {
    for (std::size_t i = 0; i < links.size(); ++i) {
        links[i].store(i < chosen.size() ? chosen[i] : no_slot, std::memory_order_release);
    }
}

// The heuristic: a candidate is left out when one that was chosen is nearer to it than the node itself is. Sorts the
// candidates; what was chosen is in build.chosen.
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

// Finds neighbours of a node on a level and links both ways. Returns the nearest node met.
Slot HnswIndex::connect(const RowCodec::Query& query, Slot slot, Slot from, std::size_t level, Build& build,
                        Walk& walk) {
    // Where many were removed they would crowd out all others, and a node without links is never found.
    for (std::size_t effort = options_.build_effort;; effort *= 4) {
        walk_level(query, from, level, effort, walk);
        build.found.clear();
        for (const Candidate& candidate : walk.pool.candidates()) {
            // Nodes of this batch are not live yet and count; removed ones do not.
            if (candidate.slot() != slot && (is_live(candidate.slot()) || !is_held(candidate.slot()))) {
                build.found.push_back({candidate.cost, candidate.slot()});
            }
        }
        if (build.found.size() >= few_neighbours || walk.pool.candidates().size() < effort) {
            break;
        }
    }
    const Slot nearest = walk.pool.candidates().front().slot();
    choose(build.found, width_, build);
    const std::vector<Slot> neighbours = build.chosen;
    lock(slot);
    // Others may have linked to it meanwhile; their links are kept where there is room.
    std::vector<Slot> all = neighbours;
    const std::span<Link> links = links_of(slot, level);
    for (const Link& link : links) {
        const Slot other = link.load(std::memory_order_relaxed);
        if (other != no_slot && all.size() < links.size() && std::find(all.begin(), all.end(), other) == all.end()) {
            all.push_back(other);
        }
    }
    write(links, all);
    unlock(slot);
    for (const Slot neighbour : neighbours) {
        link_back(neighbour, slot, level, build);
    }
    return nearest;
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
            at = connect(query, slot, at, here, build, walk);
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
    if (live_count_.load(std::memory_order_relaxed) == 0) {
        tidy(threads);  // there is nothing else to link to
    }
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
    go_on_sweeping(nodes_per_change(slots.size()), threads);
}

void HnswIndex::drop(std::span<const Slot> slots) {
    removed_.insert(removed_.end(), slots.begin(), slots.end());
    const auto held = static_cast<float>(held_count_.load(std::memory_order_relaxed));
    if (sweep_.slots.empty() && static_cast<float>(removed_.size()) > options_.removed_share_max * held) {
        begin_sweep();
    }
    go_on_sweeping(nodes_per_change(slots.size()), 1);
}

// So many that a sweep ends before enough was removed for the next one.
std::size_t HnswIndex::nodes_per_change(std::size_t slots) const {
    // Below the share of one node among all that there can be, 1 / share would not fit and says no more.
    const float share = std::max(options_.removed_share_max, 1.0F / static_cast<float>(slot_max));
    return slots * (static_cast<std::size_t>(std::ceil(1.0F / share)) + 1);
}

// Nodes that come later are linked to none that is doomed, so nodes up to here are all that a sweep has to visit.
void HnswIndex::begin_sweep() {
    sweep_.slots.swap(removed_);
    sweep_.doomed.assign(node_end_.load(std::memory_order_relaxed), false);
    for (const Slot slot : sweep_.slots) {
        sweep_.doomed[slot] = true;
    }
    sweep_.next = 0;
    sweep_.entry = no_entry;
}

void HnswIndex::go_on_sweeping(std::size_t nodes, std::size_t threads) {
    if (sweep_.slots.empty()) {
        return;
    }
    const std::size_t first = sweep_.next;
    const std::size_t count = std::min(nodes, sweep_.doomed.size() - first);
    // Also nodes that were removed since: searches walk over them to whatever they are linked to.
    share_work(count, threads, 64, [&](std::size_t i) {
        thread_local Build build;
        const auto slot = static_cast<Slot>(first + i);
        for (std::size_t level = 0; is_held(slot) && !sweep_.dooms(slot) && level <= level_of(slot); ++level) {
            repair(slot, level, build);
        }
    });
    for (std::size_t i = first; i < first + count; ++i) {
        const auto slot = static_cast<Slot>(i);
        if (is_live(slot) && (sweep_.entry == no_entry || level_of(slot) > sweep_.entry >> 32U)) {
            sweep_.entry = std::uint64_t{level_of(slot)} << 32U | slot;
        }
    }
    sweep_.next = first + count;
    if (sweep_.next == sweep_.doomed.size()) {
        end_sweep();
    }
}

void HnswIndex::end_sweep() {
    const std::uint64_t entry = entry_.load(std::memory_order_relaxed);
    if (entry != no_entry && sweep_.dooms(static_cast<Slot>(entry))) {
        const bool known = sweep_.entry != no_entry && is_live(static_cast<Slot>(sweep_.entry));
        entry_.store(known ? sweep_.entry : find_entry(), std::memory_order_release);
    }
    retire(sweep_.slots);
    sweep_ = {};
}

// The highest live node; else one that was removed and is not doomed.
std::uint64_t HnswIndex::find_entry() const {
    std::uint64_t best = no_entry;
    const auto consider = [&](Slot slot) {
        const std::uint64_t level = level_of(slot);
        if (best == no_entry || level > best >> 32U) {
            best = level << 32U | slot;
        }
    };
    for (std::size_t i = 0; i < slot_end(); ++i) {
        if (is_live(static_cast<Slot>(i))) {
            consider(static_cast<Slot>(i));
        }
    }
    if (best == no_entry) {
        std::for_each(removed_.begin(), removed_.end(), consider);
    }
    return best;
}

// Links a node past its doomed neighbours: to theirs.
void HnswIndex::repair(Slot slot, std::size_t level, Build& build) {
    lock(slot);
    const std::span<Link> links = links_of(slot, level);
    std::vector<Slot>& candidates = build.candidates;
    candidates.clear();
    bool needed = false;
    for (const Link& link : links) {
        const Slot next = link.load(std::memory_order_relaxed);
        if (next == no_slot) {
            break;
        }
        if (!sweep_.dooms(next)) {
            candidates.push_back(next);
            continue;
        }
        needed = true;
        for (const Link& further : links_of(next, level)) {
            const Slot beyond = further.load(std::memory_order_relaxed);
            if (beyond == no_slot) {
                break;
            }
            if (!sweep_.dooms(beyond) && beyond != slot) {
                candidates.push_back(beyond);
            }
        }
    }
    if (needed) {
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
    unlock(slot);
    if (needed && candidates.size() < few_neighbours && is_live(slot)) {
        reconnect(slot, level, build, walk_of_thread());
    }
}

// Looks for neighbours of a node that has lost most of them.
void HnswIndex::reconnect(Slot slot, std::size_t level, Build& build, Walk& walk) {
    const std::uint64_t entry = entry_.load(std::memory_order_acquire);
    const std::size_t top = entry >> 32U;
    if (level > top) {
        return;
    }
    build.vector.resize(options_.dimension);
    codec_.decode(rows_.row(slot), build.vector.data());
    RowCodec::Query query;
    codec_.prepare(build.vector.data(), query);
    auto at = static_cast<Slot>(entry);
    for (std::size_t above = top; above > level; --above) {
        at = descend(query, at, above);
    }
    connect(query, slot, at, level, build, walk);
}

void HnswIndex::tidy(std::size_t threads) {
    go_on_sweeping(sweep_.doomed.size(), threads);
    if (!removed_.empty()) {
        begin_sweep();
        go_on_sweeping(sweep_.doomed.size(), threads);
    }
}

}  // namespace sage::vdb
