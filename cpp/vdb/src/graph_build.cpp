// Linking new nodes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <random>
#include <thread>

#include "graph_core.hpp"
#include "graph_share.hpp"

namespace sage::vdb {
namespace {

// So many nodes are linked by one thread before others join: searches of an empty graph find nothing.
constexpr std::size_t alone_first = 256;
// Candidates beyond these are too far to become links.
constexpr std::size_t candidates_max = 160;

}  // namespace

void GraphIndex::Core::reserve(std::size_t end) {
    const auto nothing = [](auto* /*memory*/, std::size_t /*count*/) {};
    rows.reserve(end, nothing);
    states.reserve(end, [](std::atomic<std::uint8_t>* memory, std::size_t count) {
        std::uninitialized_value_construct_n(memory, count);
    });
    if (codes != nullptr) {
        codes->reserve(end, nothing);
        norms->reserve(end, nothing);
        links->reserve(end, nothing);  // clear_links() begins the life of a row
    }
}

void GraphIndex::Core::store_row(Slot slot, const float* vector) {
    std::byte* row = rows.row(slot);
    std::vector<float> unit;
    if (metric == Metric::cosine) {
        double squares = 0.0;
        for (std::size_t i = 0; i < dimension; ++i) {
            squares += static_cast<double>(vector[i]) * static_cast<double>(vector[i]);
        }
        const double length = std::sqrt(squares);
        const double scale = length < 1e-30 ? 0.0 : 1.0 / length;
        unit.resize(dimension);
        std::transform(vector, vector + dimension, unit.begin(),
                       [scale](float x) { return static_cast<float>(static_cast<double>(x) * scale); });
        vector = unit.data();
    }
    switch (options.rows) {
        case RowFormat::float32: std::copy_n(vector, dimension, reinterpret_cast<float*>(row)); break;
        case RowFormat::float16:
            kernels.to_float16(vector, dimension, reinterpret_cast<std::uint16_t*>(row));
            break;
        case RowFormat::bfloat16:
            kernels.to_bfloat16(vector, dimension, reinterpret_cast<std::uint16_t*>(row));
            break;
    }
}

void GraphIndex::Core::load_row(Slot slot, float* vector) const {
    const std::byte* row = rows.row(slot);
    switch (options.rows) {
        case RowFormat::float32: std::copy_n(reinterpret_cast<const float*>(row), dimension, vector); break;
        case RowFormat::float16:
            kernels.from_float16(reinterpret_cast<const std::uint16_t*>(row), dimension, vector);
            break;
        case RowFormat::bfloat16:
            kernels.from_bfloat16(reinterpret_cast<const std::uint16_t*>(row), dimension, vector);
            break;
    }
}

void GraphIndex::Core::lock(Slot slot) {
    std::atomic<std::uint8_t>& state = *states.row(slot);
    while ((state.fetch_or(locked, std::memory_order_acquire) & locked) != 0) {
        std::this_thread::yield();
    }
}

void GraphIndex::Core::unlock(Slot slot) {
    states.row(slot)->fetch_and(static_cast<std::uint8_t>(~locked), std::memory_order_release);
}

// A node as a query: its codes without their offset are exact.
void GraphIndex::Core::query_of(Slot slot, CodeQuery& query) const {
    const std::uint8_t* code = codes->row(slot);
    query.bytes.resize(transform.stride);
    query.step = transform.step;
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < transform.stride; ++i) {
        const int value = static_cast<int>(code[i]) - 128;
        query.bytes[i] = static_cast<std::int8_t>(value);
        sum += value;
    }
    query.offset = 128 * sum;
}

// Squared distances from context.query, which is `from`, to the slots of `found`.
void GraphIndex::Core::measure(Context& context, Slot from, std::vector<Candidate>& found) const {
    context.batch.clear();
    for (const Candidate& candidate : found) {
        context.batch.push_back(candidate.slot());
    }
    score_batch(context);
    const float norm = *norms->row(from);
    for (std::size_t i = 0; i < found.size(); ++i) {
        found[i].cost = std::max(0.0F, norm + context.scores[i]);
    }
}

// The pruning of the paper (algorithm 2), in two turns: first only what no chosen node is nearer to, then what no
// chosen one is alpha times nearer to. `found` has squared distances, in ascending order.
void GraphIndex::Core::choose(Context& context, std::vector<Candidate>& found, std::size_t count,
                              std::vector<Slot>& chosen) const {
    constexpr float taken = std::numeric_limits<float>::infinity();
    chosen.clear();
    std::vector<float>& occlusion = context.occlusion;
    occlusion.assign(found.size(), 0.0F);
    // Equal vectors do not hide each other, or most of them could not be reached; but they must not fill a row, or
    // nothing else could be reached from them.
    std::size_t equals_left = count / 4;
    std::vector<Slot>& skipped = context.skipped;
    skipped.clear();
    for (const float limit : {1.0F, options.alpha}) {
        for (std::size_t i = 0; i < found.size() && chosen.size() < count; ++i) {
            if (occlusion[i] > limit) {
                continue;
            }
            occlusion[i] = taken;
            if (found[i].cost <= 0.0F) {
                if (equals_left == 0) {
                    skipped.push_back(found[i].slot());
                    continue;
                }
                --equals_left;
            }
            const Slot slot = found[i].slot();
            chosen.push_back(slot);
            // How much nearer the chosen one is to those behind it.
            query_of(slot, context.query);
            context.batch.clear();
            context.thinned.clear();
            for (std::size_t j = 0; j < found.size(); ++j) {
                if (occlusion[j] <= options.alpha && (j > i || limit > 1.0F)) {
                    context.batch.push_back(found[j].slot());
                    context.thinned.push_back({found[j].cost, static_cast<Slot>(j)});
                }
            }
            score_batch(context);
            const float norm = *norms->row(slot);
            for (std::size_t j = 0; j < context.thinned.size(); ++j) {
                const float between = norm + context.scores[j];
                const float cost = context.thinned[j].cost;
                const float ratio = cost <= 0.0F ? 0.0F : between > 0.0F ? cost / between : taken;
                float& worst = occlusion[context.thinned[j].marked_slot];
                worst = std::max(worst, ratio);
            }
        }
    }
    const std::size_t left = std::min(skipped.size(), count - chosen.size());
    chosen.insert(chosen.end(), skipped.begin(), skipped.begin() + static_cast<std::ptrdiff_t>(left));
}

// For a node that has more equals than a search looks at: it is hung on to some of them that have room, at the ends of
// random ways. Links to the nearest would all go to the same few, which would drop most of them again.
bool GraphIndex::Core::link_among_equals(Context& context, Slot slot) {
    const auto candidates = context.pool.candidates();
    const float norm = *norms->row(slot);
    if (candidates.size() < options.build_effort || norm + candidates.back().cost > 0.0F) {
        return false;
    }
    constexpr std::size_t wanted = 4;
    constexpr std::size_t tries = 64;
    constexpr std::size_t steps = 12;
    const std::size_t width = links->stride();
    std::minstd_rand random(slot + 1);
    std::vector<Slot>& chosen = context.chosen;
    chosen.clear();
    for (std::size_t attempt = 0; attempt < tries && chosen.size() < wanted; ++attempt) {
        Slot at = candidates[random() % candidates.size()].slot();
        for (std::size_t step = 0; step < steps; ++step) {
            const Slot next = links->row(at)[random() % width].load(std::memory_order_acquire);
            if (next != no_slot && next != slot && is(next, live) && *norms->row(next) == norm) {
                at = next;
            }
        }
        lock(at);
        Links* row = links->row(at);
        std::size_t count = 0;
        while (count < width && row[count].load(std::memory_order_relaxed) != no_slot) {
            ++count;
        }
        // A quarter of the row stays free for others.
        if (count < room_after_thinning() && std::find(chosen.begin(), chosen.end(), at) == chosen.end()) {
            row[count].store(slot, std::memory_order_release);
            chosen.push_back(at);
        }
        unlock(at);
    }
    if (chosen.empty()) {
        return false;
    }
    lock(slot);
    write_links(slot, chosen);
    unlock(slot);
    return true;
}

void GraphIndex::Core::write_links(Slot slot, std::span<const Slot> chosen) {
    Links* row = links->row(slot);
    const std::size_t width = links->stride();
    for (std::size_t i = 0; i < chosen.size(); ++i) {
        row[i].store(chosen[i], std::memory_order_release);
    }
    for (std::size_t i = chosen.size(); i < width && row[i].load(std::memory_order_relaxed) != no_slot; ++i) {
        row[i].store(no_slot, std::memory_order_release);
    }
}

// For a node that no reader can know: new, or free.
void GraphIndex::Core::clear_links(Slot slot) {
    Links* row = links->row(slot);
    for (std::size_t i = 0; i < links->stride(); ++i) {
        std::construct_at(row + i, no_slot);
    }
}

// Adds the link from -> to; a full node is thinned out.
void GraphIndex::Core::link_back(Context& context, Slot from, Slot to) {
    lock(from);
    Links* row = links->row(from);
    const std::size_t width = links->stride();
    std::size_t count = 0;
    for (; count < width; ++count) {
        const Slot neighbour = row[count].load(std::memory_order_relaxed);
        if (neighbour == no_slot) {
            break;
        }
        if (neighbour == to) {
            unlock(from);
            return;
        }
    }
    if (count < width) {
        row[count].store(to, std::memory_order_release);
        unlock(from);
        return;
    }
    std::vector<Candidate>& found = context.found;
    found.assign(1, {0.0F, to});
    for (std::size_t i = 0; i < width; ++i) {
        const Slot neighbour = row[i].load(std::memory_order_relaxed);
        if (!is(neighbour, doomed)) {
            found.push_back({0.0F, neighbour});
        }
    }
    query_of(from, context.query);
    measure(context, from, found);
    std::sort(found.begin(), found.end(), nearer);
    choose(context, found, room_after_thinning(), context.chosen);
    write_links(from, context.chosen);
    unlock(from);
}

// Finds neighbours of a node whose row and codes are stored, and links both ways.
void GraphIndex::Core::link(Context& context, Slot slot) {
    query_of(slot, context.query);
    context.followed.clear();
    walk(context, options.build_effort, &context.followed);
    if (link_among_equals(context, slot)) {
        return;
    }
    std::vector<Candidate>& found = context.found;
    found.clear();
    for (const Candidate& candidate : context.pool.candidates()) {
        found.push_back({candidate.cost, candidate.slot()});
    }
    // Nodes on the way that the pool has lost: they make the long links.
    const float last = found.empty() ? 0.0F : found.back().cost;
    for (const Candidate& candidate : context.followed) {
        if (candidate.cost > last) {
            found.push_back({candidate.cost, candidate.slot()});
        }
    }
    const float norm = *norms->row(slot);
    std::erase_if(found, [&](const Candidate& candidate) {
        return candidate.slot() == slot || !is(candidate.slot(), live);
    });
    for (Candidate& candidate : found) {
        candidate.cost = std::max(0.0F, norm + candidate.cost);
    }
    std::sort(found.begin(), found.end(), nearer);
    if (found.size() > candidates_max) {
        found.resize(candidates_max);
    }
    choose(context, found, room_after_thinning(), context.chosen);
    const std::vector<Slot> chosen = context.chosen;
    lock(slot);
    write_links(slot, chosen);
    unlock(slot);
    for (const Slot neighbour : chosen) {
        link_back(context, neighbour, slot);
    }
}

void GraphIndex::Core::link_all(std::span<const Slot> slots, std::size_t threads) {
    // In a graph that is being built for the first time they are live already.
    const auto make_live = [&](Slot slot) {
        if ((states.row(slot)->fetch_or(live, std::memory_order_release) & live) == 0) {
            live_count.fetch_add(1, std::memory_order_release);
        }
    };
    const auto link_in = [&](Context& context, Slot slot) {
        link(context, slot);
        make_live(slot);
    };
    std::size_t first = 0;
    bool begins = live_count.load(std::memory_order_relaxed) < alone_first;
    if (entry.load(std::memory_order_relaxed) == no_slot && !slots.empty()) {
        make_live(slots[0]);
        entry.store(slots[0], std::memory_order_release);
        first = 1;
        begins = true;
    }
    const std::size_t alone = begins ? std::min(slots.size(), first + alone_first) : first;
    {
        const ContextPool::Lease lease(contexts);
        for (; first < alone; ++first) {
            link_in(*lease, slots[first]);
        }
    }
    share(slots.size() - first, threads, contexts,
          [&](Context& context, std::size_t i) { link_in(context, slots[first + i]); });
}

// Learns from all live rows, codes them and builds the graph over them. Readers go on scanning until it is there.
void GraphIndex::Core::train_now(std::size_t threads) {
    std::vector<Slot> order;
    const Slot end = slot_end.load(std::memory_order_relaxed);
    for (Slot slot = 0; slot < end; ++slot) {
        if (is(slot, live)) {
            order.push_back(slot);
        }
    }
    {
        constexpr std::size_t learned_from = 20000;
        const std::size_t count = std::min(order.size(), learned_from);
        std::vector<float> sample(count * dimension);
        for (std::size_t i = 0; i < count; ++i) {
            load_row(order[i * order.size() / count], sample.data() + i * dimension);
        }
        transform = train(sample, dimension, metric, options.code_dimension, threads);
    }
    codes = std::make_unique<SlotArray<std::uint8_t>>(transform.stride);
    norms = std::make_unique<SlotArray<float>>(1);
    links = std::make_unique<SlotArray<Links>>(options.degree);
    reserve(end);
    share(order.size(), threads, contexts, [&](Context& context, std::size_t i) {
        context.exact_query.resize(dimension);
        load_row(order[i], context.exact_query.data());
        *norms->row(order[i]) =
            encode(transform, metric, context.exact_query.data(), codes->row(order[i]), context.buffers);
        clear_links(order[i]);
    });
    // In no order of theirs, or what came in order of similarity would be linked to its like alone.
    std::mt19937 random(5);
    std::shuffle(order.begin(), order.end(), random);
    // The walk starts in the middle of all.
    const auto middle = std::min_element(order.begin(), order.end(),
                                         [&](Slot a, Slot b) { return *norms->row(a) < *norms->row(b); });
    std::iter_swap(order.begin(), middle);
    // The last ones are queries before they are nodes.
    const auto held = std::span(order).last(std::min(calibration_queries(), order.size() / 2));
    const auto linked = std::span(order).first(order.size() - held.size());
    link_all(linked, threads);
    std::sort(held.begin(), held.end());
    calibrate(held, held, threads);
    link_all(held, threads);
    partition_all(threads);
    trained.store(true, std::memory_order_release);
}

void GraphIndex::Core::insert(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) {
    if (slots.empty()) {
        return;
    }
    reclaim();
    const Slot last = *std::max_element(slots.begin(), slots.end());
    const Slot end = std::max(slot_end.load(std::memory_order_relaxed), last + 1);
    reserve(end);
    slot_end.store(end, std::memory_order_release);
    const bool ready = trained.load(std::memory_order_relaxed);
    share(slots.size(), threads, contexts, [&](Context& context, std::size_t i) {
        store_row(slots[i], vectors.data() + i * dimension);
        if (ready) {
            context.exact_query.resize(dimension);
            load_row(slots[i], context.exact_query.data());
            *norms->row(slots[i]) =
                encode(transform, metric, context.exact_query.data(), codes->row(slots[i]), context.buffers);
            clear_links(slots[i]);
        }
        states.row(slots[i])->store(ready ? present : present | live, std::memory_order_release);
    });
    if (ready) {
        if (owned_partition != nullptr) {
            partition_add(*owned_partition, slots, threads);
        }
        calibrate_if_due(slots, threads);
        link_all(slots, threads);
        partition_all(threads);
        return;
    }
    live_count.fetch_add(slots.size(), std::memory_order_relaxed);
    if (live_count.load(std::memory_order_relaxed) >= train_size) {
        train_now(threads);
    }
}

}  // namespace sage::vdb
