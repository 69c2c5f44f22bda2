// Lists of nodes by their nearest centre: choosing the centres, keeping the lists.
#include "graph_partition.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "graph_core.hpp"
#include "graph_share.hpp"

namespace sage::vdb {
namespace {

constexpr std::size_t rounds = 5;
// Nodes that the centres are learned from, of each.
constexpr std::size_t sample_per_list = 24;
constexpr std::size_t lists_min = 16;
constexpr std::size_t lists_max = 16384;
// New centres when there are so many times the nodes that the last were chosen for.
constexpr std::size_t growth = 4;

}  // namespace

Partition::Partition(AlignedVector<std::uint8_t> centres, std::vector<float> norms, std::size_t stride)
    : centres_(std::move(centres)), norms_(std::move(norms)), heads_(norms_.size()), free_places_(norms_.size()) {
    for (std::size_t list = 0; list < norms_.size(); ++list) {
        rows_.push_back(centres_.data() + list * stride);
        heads_[list].store(no_block, std::memory_order_relaxed);
    }
}

std::size_t Partition::memory_bytes() const noexcept {
    // There are about as many entries by slot as fit into the blocks.
    return centres_.size() + block_count_.load(std::memory_order_relaxed) * (sizeof(Block) + Block::room * sizeof(Entry));
}

void Partition::add(std::size_t list, Slot slot) {
    if (entries_.size() <= slot) {
        entries_.resize(slot + std::size_t{1}, Entry{no_block, 0});
    }
    std::vector<std::uint32_t>& places = free_places_[list];
    if (places.empty()) {
        const std::uint32_t made = block_count_.load(std::memory_order_relaxed);
        blocks_.reserve(made + std::size_t{1}, [](Block* memory, std::size_t count) {
            std::uninitialized_value_construct_n(memory, count);
        });
        Block& block = *blocks_.row(made);
        block.next.store(heads_[list].load(std::memory_order_relaxed), std::memory_order_relaxed);
        for (std::size_t i = Block::room; i-- > 0;) {
            block.slots[i].store(~Slot{0}, std::memory_order_relaxed);
            places.push_back(static_cast<std::uint32_t>(made * Block::room + i));
        }
        heads_[list].store(made, std::memory_order_release);
        block_count_.store(made + 1, std::memory_order_relaxed);
    }
    const std::uint32_t place = places.back();
    places.pop_back();
    entries_[slot] = {static_cast<std::uint32_t>(list), place};
    blocks_.row(place / Block::room)->slots[place % Block::room].store(slot, std::memory_order_release);
}

void Partition::erase(Slot slot) {
    if (slot >= entries_.size() || entries_[slot].list == no_block) {
        return;
    }
    const Entry entry = entries_[slot];
    entries_[slot].list = no_block;
    blocks_.row(entry.place / Block::room)
        ->slots[entry.place % Block::room]
        .store(~Slot{0}, std::memory_order_release);
    free_places_[entry.list].push_back(entry.place);
}

// The centre that is nearest to a node.
std::size_t GraphIndex::Core::nearest_centre(Context& context, Slot slot, const Partition& of) const {
    query_of(slot, context.query);
    score_lists(context, of);
    return static_cast<std::size_t>(std::min_element(context.scores.begin(), context.scores.end()) -
                                    context.scores.begin());
}

// k-means in code space, on a sample.
std::unique_ptr<Partition> GraphIndex::Core::choose_centres(std::span<const Slot> nodes, std::size_t threads) {
    const std::size_t stride = transform.stride;
    const std::size_t lists = std::min(
        nodes.size(), std::clamp(static_cast<std::size_t>(2.0 * std::sqrt(static_cast<double>(nodes.size()))), lists_min,
                                 lists_max));
    std::vector<Slot> sample(nodes.begin(), nodes.end());
    std::mt19937 random(11);
    std::shuffle(sample.begin(), sample.end(), random);
    sample.resize(std::min(sample.size(), lists * sample_per_list));
    AlignedVector<std::uint8_t> centres(lists * stride);
    std::vector<float> lengths(lists);
    for (std::size_t list = 0; list < lists; ++list) {
        std::copy_n(codes->row(sample[list]), stride, centres.data() + list * stride);
        lengths[list] = *norms->row(sample[list]);
    }
    std::vector<std::uint32_t> nearest(sample.size());
    std::vector<std::uint32_t> sums(lists * stride);
    std::vector<std::uint32_t> counts(lists);
    for (std::size_t round = 0; round < rounds; ++round) {
        const Partition now(centres, lengths, stride);
        share(sample.size(), threads, contexts, [&](Context& context, std::size_t i) {
            nearest[i] = static_cast<std::uint32_t>(nearest_centre(context, sample[i], now));
        });
        std::fill(sums.begin(), sums.end(), 0);
        std::fill(counts.begin(), counts.end(), 0);
        for (std::size_t i = 0; i < sample.size(); ++i) {
            const std::uint8_t* code = codes->row(sample[i]);
            std::uint32_t* sum = sums.data() + nearest[i] * stride;
            ++counts[nearest[i]];
            for (std::size_t at = 0; at < stride; ++at) {
                sum[at] += code[at];
            }
        }
        for (std::size_t list = 0; list < lists; ++list) {
            const std::uint32_t count = counts[list];
            if (count == 0) {
                continue;  // it stays where it is
            }
            double squares = 0.0;
            for (std::size_t at = 0; at < stride; ++at) {
                const std::uint32_t mean = (sums[list * stride + at] + count / 2) / count;
                centres[list * stride + at] = static_cast<std::uint8_t>(mean);
                const double value = static_cast<double>(mean) - 128.0;
                squares += value * value;
            }
            lengths[list] = static_cast<float>(squares) * transform.step * transform.step;
        }
    }
    auto made = std::make_unique<Partition>(std::move(centres), std::move(lengths), stride);
    made->made_for = nodes.size();
    return made;
}

// Puts new nodes, whose codes are stored, into lists.
void GraphIndex::Core::partition_add(Partition& into, std::span<const Slot> slots, std::size_t threads) {
    std::vector<std::uint32_t> nearest(slots.size());
    share(slots.size(), threads, contexts, [&](Context& context, std::size_t i) {
        nearest[i] = static_cast<std::uint32_t>(nearest_centre(context, slots[i], into));
    });
    for (std::size_t i = 0; i < slots.size(); ++i) {
        into.add(nearest[i], slots[i]);
    }
}

// Chooses centres anew if there are none for so many; readers of the old lists may still be there.
void GraphIndex::Core::partition_all(std::size_t threads) {
    if (owned_partition != nullptr &&
        live_count.load(std::memory_order_relaxed) < growth * owned_partition->made_for) {
        return;
    }
    std::vector<Slot> nodes;
    const Slot end = slot_end.load(std::memory_order_relaxed);
    for (Slot slot = 0; slot < end; ++slot) {
        if (is(slot, present | live)) {
            nodes.push_back(slot);
        }
    }
    if (nodes.empty()) {
        return;
    }
    std::unique_ptr<Partition> made = choose_centres(nodes, threads);
    partition_add(*made, nodes, threads);
    partition.store(made.get(), std::memory_order_release);
    if (owned_partition != nullptr) {
        retired_partitions.push_back({std::move(owned_partition), epochs.ticket()});
    }
    owned_partition = std::move(made);
}

}  // namespace sage::vdb
