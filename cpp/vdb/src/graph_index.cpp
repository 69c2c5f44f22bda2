#include "sage/vdb/graph_index.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <new>
#include <string>
#include <thread>
#include <utility>

#include "graph_core.hpp"
#include "sage/common/error.hpp"
#include "slot_checks.hpp"

namespace sage::vdb {
namespace {

// Squares of such lengths, and their sums and differences, are finite.
constexpr float length_max = 6.5e18F;
constexpr float half_max = 65504.0F;

std::size_t checked_dimension(std::size_t dimension) {
    if (dimension < 1 || dimension > GraphIndex::dimension_max) {
        throw InvalidArgument("dimension must be between 1 and " + std::to_string(GraphIndex::dimension_max) +
                              ", got " + std::to_string(dimension));
    }
    return dimension;
}

const GraphOptions& checked(const GraphOptions& options, std::size_t dimension) {
    if (options.degree < 8 || options.degree > 256) {
        throw InvalidArgument("degree must be between 8 and 256, got " + std::to_string(options.degree));
    }
    if (options.build_effort < 8 || options.build_effort > 10000) {
        throw InvalidArgument("build_effort must be between 8 and 10000, got " + std::to_string(options.build_effort));
    }
    if (!(options.alpha >= 1.0F && options.alpha <= 4.0F)) {
        throw InvalidArgument("alpha must be between 1 and 4, got " + std::to_string(options.alpha));
    }
    if (!(options.removed_share_max > 0.0F && options.removed_share_max <= 0.5F)) {
        throw InvalidArgument("removed_share_max must be above 0 and at most 0.5, got " +
                              std::to_string(options.removed_share_max));
    }
    if (options.code_dimension > dimension) {
        throw InvalidArgument("code_dimension must not be above the dimension " + std::to_string(dimension) +
                              ", got " + std::to_string(options.code_dimension));
    }
    return options;
}

void require_vectors(std::span<const float> vectors, std::size_t dimension, RowFormat format, Metric metric,
                     const char* what) {
    for (std::size_t row = 0; row < vectors.size() / dimension; ++row) {
        const auto vector = vectors.subspan(row * dimension, dimension);
        const float squares = distance::kernels().inner_product(vector.data(), vector.data(), dimension);
        const bool narrow = format == RowFormat::float16 && metric != Metric::cosine && squares > half_max * half_max;
        if (squares <= length_max * length_max && !narrow) {
            continue;
        }
        for (std::size_t i = 0; i < dimension; ++i) {
            const std::string name = std::string(what) + "[" + std::to_string(row) + "][" + std::to_string(i) + "]";
            if (!std::isfinite(vector[i])) {
                throw InvalidArgument(name + " must be finite, got " +
                                      (std::isnan(vector[i]) ? "nan" : vector[i] > 0 ? "inf" : "-inf"));
            }
            if (narrow && std::fabs(vector[i]) > half_max) {
                throw InvalidArgument(name + " must be within 65504 for float16 rows, got " +
                                      std::to_string(vector[i]) + "; float32 or bfloat16 rows hold it");
            }
        }
        if (!(squares <= length_max * length_max)) {
            throw InvalidArgument(std::string(what) + "[" + std::to_string(row) +
                                  "] must not be longer than 6.5e18, so that scores stay finite");
        }
    }
}

// Calls work(i) for 0 <= i < count on several threads; the first failure is passed on.
template <class Work>
void share(std::size_t count, std::size_t threads, Work work) {
    constexpr std::size_t claim = 4;
    std::atomic<std::size_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure;
    const auto run = [&] {
        try {
            for (std::size_t first = next.fetch_add(claim); first < count; first = next.fetch_add(claim)) {
                for (std::size_t i = first; i < std::min(count, first + claim); ++i) {
                    work(i);
                }
            }
        } catch (...) {
            if (!failed.exchange(true)) {
                failure = std::current_exception();
            }
        }
    };
    {
        std::vector<std::jthread> others;
        for (std::size_t thread = 1; thread < std::min(threads, (count + claim - 1) / claim); ++thread) {
            others.emplace_back(run);
        }
        run();
    }
    if (failure) {
        std::rethrow_exception(failure);
    }
}

}  // namespace

std::string_view row_format_name(RowFormat format) noexcept {
    switch (format) {
        case RowFormat::float32: return "float32";
        case RowFormat::float16: return "float16";
        case RowFormat::bfloat16: return "bfloat16";
    }
    return "unknown";
}

RowFormat row_format_from_name(std::string_view name) {
    for (const RowFormat format : {RowFormat::float32, RowFormat::float16, RowFormat::bfloat16}) {
        if (row_format_name(format) == name) {
            return format;
        }
    }
    throw InvalidArgument("rows must be 'float32', 'float16' or 'bfloat16', got '" + std::string(name) + "'");
}

GraphIndex::Core::Core(std::size_t dimension_of_vectors, Metric metric_of_scores, const GraphOptions& chosen)
    : dimension(checked_dimension(dimension_of_vectors)),
      metric(metric_of_scores),
      options(checked(chosen, dimension_of_vectors)),
      row_bytes((dimension_of_vectors * (chosen.rows == RowFormat::float32 ? 4U : 2U) + 15) / 16 * 16),
      kernels(distance::code_kernels()),
      rows(row_bytes),
      states(1) {}

GraphIndex::GraphIndex(std::size_t dimension, Metric metric, const GraphOptions& options)
    : core_(std::make_unique<Core>(dimension, metric, options)) {}
GraphIndex::GraphIndex(std::unique_ptr<Core> core) : core_(std::move(core)) {}
GraphIndex::~GraphIndex() = default;
GraphIndex::GraphIndex(GraphIndex&&) noexcept = default;
GraphIndex& GraphIndex::operator=(GraphIndex&&) noexcept = default;

void GraphIndex::insert(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) {
    require_rows(vectors.size(), slots.size(), core_->dimension);
    require_threads(threads);
    require_vectors(vectors, core_->dimension, core_->options.rows, core_->metric, "vectors");
    core_->reclaim();
    const Slot end = core_->slot_end.load(std::memory_order_relaxed);
    require_free(
        slots, [this, end](Slot slot) { return slot < end && core_->is(slot, Core::present); },
        [this](Slot slot) { return core_->is(slot, Core::live); });
    core_->insert(slots, vectors, threads);
}

std::size_t GraphIndex::remove(std::span<const Slot> slots) { return core_->remove(slots); }

void GraphIndex::consolidate(std::size_t threads) {
    if (threads < 1) {
        throw InvalidArgument("threads must be >= 1, got 0");
    }
    if (core_->sweeping) {
        core_->sweep_all(threads);
    }
    if (!core_->removed.empty()) {
        core_->begin_sweep();
        core_->sweep_all(threads);
    }
    core_->reclaim();
}

std::vector<Slot> GraphIndex::take_free() {
    core_->reclaim();
    return std::exchange(core_->freed, {});
}

std::size_t GraphIndex::search(std::span<const float> query, std::size_t k, std::size_t effort, Slot* slots,
                               float* scores, const std::span<const std::uint64_t>* allowed) const {
    if (query.size() != core_->dimension) {
        throw InvalidArgument("a query must have the dimension " + std::to_string(core_->dimension) + ", got " +
                              std::to_string(query.size()));
    }
    if (k < 1) {
        throw InvalidArgument("k must be >= 1, got 0");
    }
    require_vectors(query, core_->dimension, RowFormat::float32, core_->metric, "query");
    return core_->search(query, k, effort, slots, scores, allowed);
}

void GraphIndex::search_batch(std::span<const float> queries, std::size_t k, std::size_t effort, Slot* slots,
                              float* scores, std::size_t* counts, std::size_t threads,
                              const std::span<const std::uint64_t>* allowed) const {
    if (queries.size() % core_->dimension != 0) {
        throw InvalidArgument("queries must be rows of dimension " + std::to_string(core_->dimension) + ", got " +
                              std::to_string(queries.size()) + " values");
    }
    if (k < 1 || threads < 1) {
        throw InvalidArgument((k < 1 ? "k" : "threads") + std::string(" must be >= 1, got 0"));
    }
    require_vectors(queries, core_->dimension, RowFormat::float32, core_->metric, "queries");
    const std::size_t count = queries.size() / core_->dimension;
    share(count, threads, [&](std::size_t i) {
        counts[i] = core_->search(queries.subspan(i * core_->dimension, core_->dimension), k, effort, slots + i * k,
                                  scores + i * k, allowed);
    });
}

namespace {

GraphHits hits_of(const GraphIndex& index, std::span<const float> query, std::size_t k, std::size_t effort,
                  const std::span<const std::uint64_t>* allowed) {
    const std::size_t room = std::min(k, std::max<std::size_t>(index.size(), 1));
    GraphHits hits{std::vector<Slot>(room), std::vector<float>(room)};
    const std::size_t count =
        index.search(query, std::min(k, room), effort, hits.slots.data(), hits.scores.data(), allowed);
    hits.slots.resize(count);
    hits.scores.resize(count);
    return hits;
}

}  // namespace

GraphHits GraphIndex::search(std::span<const float> query, std::size_t k, std::size_t effort) const {
    return hits_of(*this, query, k, effort, nullptr);
}

GraphHits GraphIndex::search(std::span<const float> query, std::size_t k, std::size_t effort,
                             std::span<const std::uint64_t> allowed) const {
    return hits_of(*this, query, k, effort, &allowed);
}

bool GraphIndex::contains(Slot slot) const {
    return slot < core_->slot_end.load(std::memory_order_acquire) && core_->is(slot, Core::live);
}

bool GraphIndex::get(Slot slot, std::span<float> vector) const {
    if (vector.size() != core_->dimension) {
        throw InvalidArgument("vector must have the dimension " + std::to_string(core_->dimension) + ", got " +
                              std::to_string(vector.size()));
    }
    const Epochs::Guard guard = core_->epochs.enter();
    if (!contains(slot)) {
        return false;
    }
    core_->load_row(slot, vector.data());
    return true;
}

std::size_t GraphIndex::size() const { return core_->live_count.load(std::memory_order_acquire); }
std::size_t GraphIndex::dimension() const noexcept { return core_->dimension; }
Metric GraphIndex::metric() const noexcept { return core_->metric; }
const GraphOptions& GraphIndex::options() const noexcept { return core_->options; }

GraphStats GraphIndex::stats() const {
    const Core& core = *core_;
    GraphStats stats;
    stats.size = size();
    const std::size_t end = core.slot_end.load(std::memory_order_acquire);
    std::size_t per_slot = core.row_bytes + 1;
    if (core.trained.load(std::memory_order_acquire)) {
        per_slot += core.transform.stride + sizeof(float) + core.options.degree * sizeof(Slot);
        stats.code_dimension = core.transform.code_dimension;
        stats.code_energy = core.transform.energy;
    }
    for (Slot slot = 0; slot < end; ++slot) {
        if (!core.is(slot, Core::present)) {
            continue;
        }
        stats.removed += core.is(slot, Core::live) ? 0 : 1;
        if (stats.code_dimension != 0) {
            const Core::Links* row = core.links->row(slot);
            for (std::size_t i = 0; i < core.options.degree && row[i].load(std::memory_order_relaxed) != no_slot; ++i) {
                ++stats.links;
            }
        }
    }
    stats.memory_bytes = end * per_slot + core.transform.basis.size() * 5;
    const Epochs::Guard guard = core.epochs.enter();
    if (const Partition* lists = core.partition.load(std::memory_order_acquire); lists != nullptr) {
        stats.memory_bytes += lists->memory_bytes();
    }
    return stats;
}

std::string GraphIndex::explain_filter(std::size_t allowed, std::size_t k, std::size_t effort) const {
    const Epochs::Guard guard = core_->epochs.enter();
    const Partition* lists = core_->partition.load(std::memory_order_acquire);
    if (lists == nullptr) {
        return "the graph scores all allowed vectors";
    }
    const std::size_t words = (core_->slot_end.load(std::memory_order_acquire) + 63) / 64;
    const ScanLimits limits = core_->plan_scan(core_->ranked_of(k), std::max(effort, k),
                                               static_cast<double>(allowed), words, *lists);
    return limits.all ? "the graph looks at the codes of all allowed vectors"
                      : "the graph looks at the codes of allowed vectors in the lists nearest to the query, about " +
                            std::to_string(limits.lists_expected) + " of " + std::to_string(lists->lists());
}

std::vector<std::byte> GraphIndex::save() const { return core_->save(); }

GraphIndex GraphIndex::load(std::span<const std::byte> bytes) {
    try {
        return GraphIndex(Core::load(bytes));
    } catch (const std::bad_alloc&) {
        // A few bytes can speak of very many slots.
        throw InvalidArgument("not a saved graph index, or one that needs more memory than there is");
    }
}

}  // namespace sage::vdb
