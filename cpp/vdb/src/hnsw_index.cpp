#include "hnsw_index.hpp"

#include <algorithm>
#include <memory>

namespace sage::vdb {

void HnswIndex::reserve_nodes(std::size_t end) {
    rows_.reserve(end, [](std::byte*, std::size_t) {});
    lowest_.reserve(end, [](Link* links, std::size_t count) {
        std::uninitialized_fill_n(reinterpret_cast<Slot*>(links), count, no_slot);
    });
    upper_.reserve(end, [](auto* nodes, std::size_t count) { std::uninitialized_value_construct_n(nodes, count); });
    locks_.reserve(end, [](auto* locks, std::size_t count) { std::uninitialized_value_construct_n(locks, count); });
    if (end > node_end_.load(std::memory_order_relaxed)) {
        node_end_.store(end, std::memory_order_release);
    }
}

IndexStats HnswIndex::stats() const {
    IndexStats stats = SlotIndex::stats();
    const Epochs::Guard guard = epochs_.enter();
    const std::size_t end = std::min(slot_end(), node_end_.load(std::memory_order_acquire));
    for (std::size_t i = 0; i < end; ++i) {
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
    out.fixed(entry_.load(std::memory_order_relaxed));
    for (const Slot slot : held) {
        const std::size_t levels = level_of(slot);
        out.fixed(static_cast<std::uint8_t>(levels));
        for (std::size_t level = 0; level <= levels; ++level) {
            for (const Link& link : links_of(slot, level)) {
                out.fixed(link.load(std::memory_order_relaxed));
            }
        }
    }
}

void HnswIndex::load_rows(IndexReader& in, std::span<const Slot> held, const std::vector<bool>& live,
                          std::span<const std::byte> rows) {
    const auto entry = in.fixed<std::uint64_t>();
    const std::size_t end = held.empty() ? 0 : std::size_t{held.back()} + 1;
    const std::size_t bytes = codec_.row_bytes();
    in.require_left(held.size(), 1 + 2 * width_ * sizeof(Slot));
    reserve_nodes(end);
    std::vector<bool> there(end, false);
    std::vector<Slot> links;
    for (std::size_t i = 0; i < held.size(); ++i) {
        std::copy_n(rows.data() + i * bytes, bytes, rows_.row(held[i]));
        there[held[i]] = true;
        const auto levels = std::size_t{in.fixed<std::uint8_t>()};
        require_bytes(levels <= level_max, "a node has too many levels");
        if (levels != 0) {
            in.require_left(levels * width_, sizeof(Slot));
            upper_.row(held[i])->store(new Upper(levels, width_), std::memory_order_relaxed);
        }
        for (std::size_t level = 0; level <= levels; ++level) {
            const std::span<Link> to = links_of(held[i], level);
            links.resize(to.size());
            in.values(links.data(), links.size());
            const auto used = std::find(links.begin(), links.end(), no_slot);
            require_bytes(std::all_of(used, links.end(), [](Slot x) { return x == no_slot; }),
                          "a row of links has a gap");
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

std::unique_ptr<SlotIndex> make_hnsw_index(const IndexOptions& options) {
    return std::make_unique<HnswIndex>(options);
}

}  // namespace sage::vdb
