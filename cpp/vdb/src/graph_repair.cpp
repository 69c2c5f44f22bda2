// Linking past removed nodes, and freeing their slots.
#include <algorithm>

#include "graph_core.hpp"
#include "graph_share.hpp"

namespace sage::vdb {
namespace {

// With each removed node so many times the nodes per removed one are looked at: the sweep ends before the next is due.
constexpr float sweep_pace = 2.0F;
// What linking past one removed node takes, in nodes that are looked at.
constexpr std::size_t nodes_per_bypass = 4;
// How many links a removed node's neighbour gets for the one that it loses. On B (benchmark/vdb) after a fifth was
// replaced the recall of the lowest effort had lost 1.5 points with none, 0.7 with 1, 0.4 with 3 and nothing with 5.
constexpr std::size_t links_past = 5;
// Fewer removed nodes than these are not worth a sweep.
constexpr std::size_t removed_min = 64;

}  // namespace

std::size_t GraphIndex::Core::remove(std::span<const Slot> slots) {
    const Slot end = slot_end.load(std::memory_order_relaxed);
    const bool ready = trained.load(std::memory_order_relaxed);
    std::size_t count = 0;
    for (const Slot slot : slots) {
        if (slot >= end || !is(slot, present | live)) {
            continue;
        }
        states.row(slot)->fetch_and(static_cast<std::uint8_t>(~live), std::memory_order_release);
        live_count.fetch_sub(1, std::memory_order_relaxed);
        ++count;
        if (ready) {
            // Before the ticket that frees it is drawn: readers who come later must not find it there.
            if (owned_partition != nullptr) {
                owned_partition->erase(slot);
            }
            removed.push_back(slot);
            removed_count.fetch_add(1, std::memory_order_relaxed);
        } else {
            retired.push_back({slot, epochs.ticket()});
        }
    }
    if (ready && count > 0) {
        calibration.changes += count;
        const float total = static_cast<float>(live_count.load(std::memory_order_relaxed) + removed.size());
        const float due = std::max(static_cast<float>(removed_min), options.removed_share_max * total);
        if (!sweeping && static_cast<float>(removed.size()) >= due) {
            begin_sweep();
        }
        if (sweeping) {
            sweep(count * (static_cast<std::size_t>(sweep_pace * total / due) + 1));
        }
    }
    reclaim();
    return count;
}

void GraphIndex::Core::begin_sweep() {
    unlinking.swap(removed);
    removed.clear();
    for (const Slot slot : unlinking) {
        states.row(slot)->fetch_or(doomed, std::memory_order_release);
    }
    sweep_at = 0;
    sweeping = true;
    choose_entry();
    bypassed = 0;
}

// A live node near to the old entry, if that is doomed.
void GraphIndex::Core::choose_entry() {
    const Slot old = entry.load(std::memory_order_relaxed);
    if (old != no_slot && !is(old, doomed)) {
        return;
    }
    Slot best = no_slot;
    const Slot end = slot_end.load(std::memory_order_relaxed);
    for (Slot slot = 0; slot < end; ++slot) {
        if (is(slot, present | live) && (best == no_slot || *norms->row(slot) < *norms->row(best))) {
            best = slot;
        }
    }
    entry.store(best, std::memory_order_release);
}

// Each neighbour of a removed node gets links from those of the other neighbours that are nearest to it, in place of the
// one that the removed node had to it. (The in-place deletion of Xu et al., "In-Place Updates of a Graph Index for
// Streaming Approximate Nearest Neighbor Search", 2025, without its search.)
void GraphIndex::Core::bypass(Context& context, Slot slot) {
    std::vector<Slot>& around = context.detours;
    around.clear();
    const Links* row = links->row(slot);
    for (std::size_t i = 0; i < links->stride(); ++i) {
        const Slot neighbour = row[i].load(std::memory_order_acquire);
        if (neighbour == no_slot) {
            break;
        }
        if (is(neighbour, live)) {
            around.push_back(neighbour);
        }
    }
    for (const Slot to : around) {
        query_of(to, context.query);
        context.batch.assign(around.begin(), around.end());
        score_batch(context);
        context.ranked.clear();
        for (std::size_t i = 0; i < around.size(); ++i) {
            if (around[i] != to) {
                context.ranked.push_back({context.scores[i], around[i]});
            }
        }
        const std::size_t count = std::min(links_past, context.ranked.size());
        std::partial_sort(context.ranked.begin(), context.ranked.begin() + static_cast<std::ptrdiff_t>(count),
                          context.ranked.end(), nearer);
        for (std::size_t i = 0; i < count; ++i) {
            link_back(context, context.ranked[i].slot(), to);
        }
    }
}

// Looks at so many nodes more. Linked nodes that come meanwhile take no links to doomed ones.
void GraphIndex::Core::sweep(std::size_t nodes) {
    const Slot end = slot_end.load(std::memory_order_relaxed);
    const ContextPool::Lease lease(contexts);
    for (; nodes > 0 && bypassed < unlinking.size(); ++bypassed) {
        bypass(*lease, unlinking[bypassed]);
        nodes -= std::min(nodes, nodes_per_bypass);
    }
    for (; nodes > 0 && sweep_at < end; --nodes, ++sweep_at) {
        repair(*lease, sweep_at);
    }
    if (sweep_at >= end && bypassed == unlinking.size()) {
        end_sweep();
    }
}

void GraphIndex::Core::sweep_all(std::size_t threads) {
    const Slot end = slot_end.load(std::memory_order_relaxed);
    share(unlinking.size() - bypassed, threads, contexts,
          [&](Context& context, std::size_t i) { bypass(context, unlinking[bypassed + i]); });
    bypassed = unlinking.size();
    share(end - sweep_at, threads, contexts, [&](Context& context, std::size_t i) {
        repair(context, sweep_at + static_cast<Slot>(i));
    });
    sweep_at = end;
    end_sweep();
}

void GraphIndex::Core::end_sweep() {
    sweeping = false;
    const Epochs::Ticket ticket = epochs.ticket();
    for (const Slot slot : unlinking) {
        retired.push_back({slot, ticket});
    }
    removed_count.fetch_sub(unlinking.size(), std::memory_order_relaxed);
    unlinking.clear();
}

// Replaces links to doomed nodes, one for one, by what those link to. The other links stay as they are: thinning them out
// again would cost the long ones, and recall with them.
void GraphIndex::Core::repair(Context& context, Slot slot) {
    const std::uint8_t state = states.row(slot)->load(std::memory_order_acquire);
    if ((state & present) == 0 || (state & doomed) != 0) {
        return;
    }
    const Links* row = links->row(slot);
    const std::size_t width = links->stride();
    std::vector<Slot>& kept = context.chosen;
    const auto look = [&] {
        kept.clear();
        context.detours.clear();
        for (std::size_t i = 0; i < width; ++i) {
            const Slot neighbour = row[i].load(std::memory_order_relaxed);
            if (neighbour == no_slot) {
                break;
            }
            (is(neighbour, doomed) ? context.detours : kept).push_back(neighbour);
        }
    };
    look();
    if (context.detours.empty()) {
        return;
    }
    lock(slot);
    look();
    std::vector<Candidate>& found = context.found;
    candidates_behind(context, slot, found);
    query_of(slot, context.query);
    measure(context, slot, found);
    const std::size_t wanted = context.detours.size();
    const std::size_t tried = std::min(found.size(), 2 * wanted + 4);
    std::partial_sort(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(tried), found.end(), nearer);
    found.resize(tried);
    const std::size_t end = std::min(width, kept.size() + wanted);
    // First those that no link leads to already, then the nearest of the others.
    context.skipped.clear();
    for (std::size_t i = 0; i < found.size() && kept.size() < end; ++i) {
        if (is_hidden(context, found[i], kept)) {
            context.skipped.push_back(found[i].slot());
        } else {
            kept.push_back(found[i].slot());
        }
    }
    const std::size_t left = std::min(end - kept.size(), context.skipped.size());
    kept.insert(kept.end(), context.skipped.begin(), context.skipped.begin() + static_cast<std::ptrdiff_t>(left));
    write_links(slot, kept);
    unlock(slot);
}

// The neighbours of the nodes in context.detours that are neither doomed nor in context.chosen nor `slot`.
void GraphIndex::Core::candidates_behind(Context& context, Slot slot, std::vector<Candidate>& found) const {
    context.visited.reset(slot_end.load(std::memory_order_relaxed));
    context.visited.add(slot);
    for (const Slot known : context.chosen) {
        context.visited.add(known);
    }
    found.clear();
    for (const Slot detour : context.detours) {
        const Links* row = links->row(detour);
        for (std::size_t i = 0; i < links->stride(); ++i) {
            const Slot neighbour = row[i].load(std::memory_order_acquire);
            if (neighbour == no_slot) {
                break;
            }
            if (!is(neighbour, doomed) && is(neighbour, live) && context.visited.add(neighbour)) {
                found.push_back({0.0F, neighbour});
            }
        }
    }
}

// Whether one of `chosen` is alpha times nearer to the candidate than the candidate is to its node.
bool GraphIndex::Core::is_hidden(Context& context, const Candidate& candidate, std::span<const Slot> chosen) const {
    query_of(candidate.slot(), context.query);
    context.batch.assign(chosen.begin(), chosen.end());
    score_batch(context);
    const float norm = *norms->row(candidate.slot());
    return std::any_of(context.scores.begin(), context.scores.end(), [&](float score) {
        return candidate.cost > options.alpha * std::max(0.0F, norm + score);
    });
}

// Frees what no reader can see any more.
void GraphIndex::Core::reclaim() {
    while (!retired.empty() && epochs.passed(retired.front().ticket)) {
        const Slot slot = retired.front().slot;
        states.row(slot)->store(0, std::memory_order_release);
        freed.push_back(slot);
        retired.pop_front();
    }
    while (!retired_partitions.empty() && epochs.passed(retired_partitions.front().ticket)) {
        retired_partitions.pop_front();
    }
}

}  // namespace sage::vdb
