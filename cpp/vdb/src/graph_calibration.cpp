// Which effort gives which recall: measured with new vectors before they are linked, against a scan of all codes.
#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>

#include "graph_core.hpp"
#include "graph_share.hpp"

namespace sage::vdb {
namespace {

constexpr std::size_t answers = 10;
// Measured anew when so many vectors came or went as this share of all, and at least so many.
constexpr std::size_t changes_per_size = 5;
constexpr std::size_t changes_min = 4000;

}  // namespace

// Adds the vector of a slot, stored and coded but not linked, to what is measured. `others`: not linked either.
void GraphIndex::Core::measure_effort(Context& context, Slot slot, std::span<const Slot> others,
                                      std::array<std::uint32_t, Calibration::steps>& hits) const {
    context.exact_query.resize(dimension);
    load_row(slot, context.exact_query.data());
    encode_query(transform, metric, context.exact_query.data(), context.query, context.buffers);
    context.pool.reset(2 * ranked_of(answers));
    scan_live(context, slot, others);
    std::array<Slot, answers> best;
    std::array<Slot, answers> found;
    std::array<float, answers> scores;
    const std::size_t there = rank(context, answers, best.data(), scores.data());
    for (std::size_t step = 0; step < Calibration::steps; ++step) {
        walk(context, Calibration::efforts[step], nullptr);
        const std::size_t count = rank(context, answers, found.data(), scores.data());
        for (std::size_t i = 0; i < there; ++i) {
            const auto end = found.begin() + static_cast<std::ptrdiff_t>(count);
            hits[step] += std::find(found.begin(), end, best[i]) != end ? 1 : 0;
        }
        // Slots that there are too few of count as found.
        hits[step] += static_cast<std::uint32_t>(answers - there);
        if (hits[step] == answers) {
            // More effort finds them too.
            std::fill(hits.begin() + static_cast<std::ptrdiff_t>(step), hits.end(), hits[step]);
            break;
        }
    }
}

// So many queries are enough for a graph of that size: more make it surer and take longer.
std::size_t GraphIndex::Core::calibration_queries() const {
    constexpr std::size_t per_query = 200;
    return std::clamp(live_count.load(std::memory_order_relaxed) / per_query, std::size_t{64}, std::size_t{256});
}

// Takes new vectors as queries until there are enough of them, and then publishes what they gave.
void GraphIndex::Core::calibrate(std::span<const Slot> slots, std::span<const Slot> others, std::size_t threads) {
    const std::size_t wanted = calibration_queries();
    const std::size_t count = std::min(slots.size(), wanted - std::min(wanted, calibration.measured));
    std::mutex mutex;
    share(count, threads, contexts, [&](Context& context, std::size_t i) {
        std::array<std::uint32_t, Calibration::steps> hits{};
        measure_effort(context, slots[i], others, hits);
        const std::lock_guard guard(mutex);
        for (std::size_t step = 0; step < hits.size(); ++step) {
            calibration.hits[step] += hits[step];
        }
    });
    calibration.measured += count;
    if (calibration.measured < wanted) {
        return;
    }
    const auto all = static_cast<float>(answers * calibration.measured);
    float recall = 0.0F;
    for (std::size_t step = 0; step < Calibration::steps; ++step) {
        // Less what chance may have added: one standard error.
        const float share = static_cast<float>(calibration.hits[step]) / all;
        recall = std::max(recall, share - std::sqrt(share * (1.0F - share) / all));
        calibration.recalls[step].store(recall, std::memory_order_relaxed);
    }
    calibration.hits.fill(0);
    calibration.measured = 0;
    calibration.changes = 0;
}

// Before slots are linked.
void GraphIndex::Core::calibrate_if_due(std::span<const Slot> slots, std::size_t threads) {
    calibration.changes += slots.size();
    const std::size_t size = live_count.load(std::memory_order_relaxed);
    if (calibration.changes >= std::max(changes_min, size / changes_per_size)) {
        calibrate(slots, {}, threads);
    }
}

std::size_t GraphIndex::effort_for(double recall, std::size_t k) const {
    const auto& recalls = core_->calibration.recalls;
    const auto& efforts = Calibration::efforts;
    const auto at = [&](std::size_t step) {
        return static_cast<double>(recalls[step].load(std::memory_order_relaxed));
    };
    if (at(Calibration::steps - 1) <= 0.0) {
        return 0;
    }
    std::size_t step = 0;
    while (step < Calibration::steps && at(step) < recall) {
        ++step;
    }
    double effort = efforts[0];
    if (step == Calibration::steps) {
        effort = 2.0 * efforts[Calibration::steps - 1];
    } else if (step > 0) {
        // Between two steps the share of what is missed falls as a power of the effort, or about.
        const double share = (recall - at(step - 1)) / std::max(at(step) - at(step - 1), 1e-9);
        effort = std::exp(std::log(static_cast<double>(efforts[step - 1])) * (1.0 - share) +
                          std::log(static_cast<double>(efforts[step])) * share);
    }
    // More answers than were measured need more than their number, the better they are to be found.
    const auto wanted = static_cast<double>(k);
    const double scaled = k <= answers ? effort : std::max(effort, wanted * (1.0 + effort / 64.0));
    return static_cast<std::size_t>(std::ceil(std::max(scaled, wanted)));
}

}  // namespace sage::vdb
