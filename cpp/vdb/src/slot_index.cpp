#include "slot_index.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <exception>
#include <thread>
#include <utility>

#include "sage/common/error.hpp"
#include "slot_checks.hpp"

namespace sage::vdb {
namespace {

constexpr float squares_max = SlotIndex::length_max * SlotIndex::length_max;
constexpr float half_max = 65504.0F;
constexpr float cosine_length_min = 1e-30F;

IndexOptions checked(const IndexOptions& options) {
    if (options.dimension < 1 || options.dimension > SlotIndex::dimension_max) {
        throw InvalidArgument("dimension must be between 1 and " + std::to_string(SlotIndex::dimension_max) +
                              ", got " + std::to_string(options.dimension));
    }
    if (options.rerank && *options.rerank == Storage::bit1) {
        throw InvalidArgument("rerank must be a form that keeps the values, got 'bit1'");
    }
    if (options.rerank_factor > 10000) {
        throw InvalidArgument("rerank_factor must be at most 10000, got " + std::to_string(options.rerank_factor));
    }
    if (options.lists > 1000000) {
        throw InvalidArgument("lists must be at most 1000000, got " + std::to_string(options.lists));
    }
    if (options.links < 4 || options.links > 128) {
        throw InvalidArgument("links must be between 4 and 128, got " + std::to_string(options.links));
    }
    if (options.build_effort < 8 || options.build_effort > 10000) {
        throw InvalidArgument("build_effort must be between 8 and 10000, got " + std::to_string(options.build_effort));
    }
    if (!(options.removed_share_max > 0.0F && options.removed_share_max <= 0.5F)) {
        throw InvalidArgument("removed_share_max must be above 0 and at most 0.5, got " +
                              std::to_string(options.removed_share_max));
    }
    IndexOptions chosen = options;
    if (!chosen.rerank && chosen.storage >= Storage::int4) {
        chosen.rerank = Storage::float16;
    }
    if (chosen.rerank == chosen.storage) {
        chosen.rerank.reset();
    }
    return chosen;
}

bool is_narrow(const IndexOptions& options) {
    return options.storage == Storage::float16 || options.rerank == Storage::float16;
}

void require_vectors(std::span<const float> vectors, std::size_t dimension, bool narrow, const char* what) {
    for (std::size_t row = 0; row < vectors.size() / dimension; ++row) {
        const auto vector = vectors.subspan(row * dimension, dimension);
        const float squares = distance::kernels().inner_product(vector.data(), vector.data(), dimension);
        if (squares <= squares_max && !(narrow && squares > half_max * half_max)) {
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
        if (!(squares <= squares_max)) {
            throw InvalidArgument(std::string(what) + "[" + std::to_string(row) +
                                  "] must not be longer than 6.5e18, so that scores stay finite");
        }
    }
}

// So far ahead rows are fetched: what comes from memory is on its way while the rows before are looked at.
constexpr std::size_t fetch_ahead_bytes = 8192;
constexpr std::size_t burst_bytes = 4096;

}  // namespace

void share_work(std::size_t count, std::size_t threads, std::size_t claim,
                const std::function<void(std::size_t)>& work) {
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

SlotIndex::SlotIndex(const IndexOptions& options)
    : options_(checked(options)), codec_(options_.dimension, options_.metric, options_.storage) {
    // Until bit1 has its centre there are fine rows alone; it always has them.
    learned_.store(options_.storage != Storage::bit1, std::memory_order_relaxed);
    if (options_.rerank) {
        fine_ = std::make_unique<RowCodec>(options_.dimension, options_.metric, *options_.rerank);
        fine_rows_ = std::make_unique<SlotArray<std::byte>>((fine_->row_bytes() + 15) / 16 * 16);
    }
}

void SlotIndex::normalise(std::span<float> vectors) const {
    if (options_.metric != Metric::cosine) {
        return;
    }
    for (std::size_t first = 0; first < vectors.size(); first += options_.dimension) {
        const auto row = vectors.subspan(first, options_.dimension);
        double squares = 0.0;
        for (const float value : row) {
            squares += static_cast<double>(value) * static_cast<double>(value);
        }
        const double length = std::sqrt(squares);
        const double scale = length < static_cast<double>(cosine_length_min) ? 0.0 : 1.0 / length;
        for (float& value : row) {
            value = static_cast<float>(static_cast<double>(value) * scale);
        }
    }
}

void SlotIndex::check_insert(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) const {
    const std::size_t dimension = options_.dimension;
    require_rows(vectors.size(), slots.size(), dimension);
    require_threads(threads);
    require_vectors(vectors, dimension, is_narrow(options_) && options_.metric != Metric::cosine, "vectors");
    require_free(slots, [this](Slot slot) { return is_held(slot); }, [this](Slot slot) { return is_live(slot); });
}

void SlotIndex::reserve_slots(std::size_t end) {
    const auto nothing = [](std::byte*, std::size_t) {};
    live_.reserve((end + 63) / 64, [](std::atomic<std::uint64_t>* words, std::size_t count) {
        std::uninitialized_value_construct_n(words, count);
    });
    if (fine_rows_) {
        fine_rows_->reserve(end, nothing);
    }
    if (held_.size() < end) {
        held_.resize(std::max(end, held_.size() + held_.size() / 2));
    }
}

void SlotIndex::insert(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) {
    reclaim();
    check_insert(slots, vectors, threads);
    if (slots.empty()) {
        return;
    }
    std::vector<float> brought;
    if (options_.metric == Metric::cosine) {
        brought.assign(vectors.begin(), vectors.end());
        normalise(brought);
        vectors = brought;
    }
    reserve_slots(std::size_t{*std::max_element(slots.begin(), slots.end())} + 1);
    for (std::size_t i = 0; fine_ && i < slots.size(); ++i) {
        fine_->encode(vectors.data() + i * options_.dimension, fine_rows_->row(slots[i]));
    }
    if (has_learned()) {
        place(slots, vectors, threads);
    } else if (size() + slots.size() >= learn_min) {
        learn(slots, vectors, threads);
    }
    publish(slots);
    // Slots that the owner uses of its own accord are no news for take_free().
    std::erase_if(freed_, [&](Slot slot) { return held_[slot]; });
}

// From all there are. Readers go on with the fine rows until the codes of all are in place.
void SlotIndex::learn(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) {
    std::vector<Slot> all;
    std::vector<float> values;
    for (std::size_t i = 0; i < slot_end(); ++i) {
        if (is_live(static_cast<Slot>(i))) {
            all.push_back(static_cast<Slot>(i));
            values.resize(values.size() + options_.dimension);
            fine_->decode(fine_rows_->row(all.back()), values.data() + values.size() - options_.dimension);
        }
    }
    all.insert(all.end(), slots.begin(), slots.end());
    values.insert(values.end(), vectors.begin(), vectors.end());
    codec_.learn(values);
    place(all, values, threads);
    learned_.store(true, std::memory_order_release);
}

void SlotIndex::publish(std::span<const Slot> slots) {
    for (const Slot slot : slots) {
        held_[slot] = true;
        live_.row(slot / 64)->fetch_or(std::uint64_t{1} << (slot % 64), std::memory_order_release);
    }
    const std::size_t end = std::size_t{*std::max_element(slots.begin(), slots.end())} + 1;
    if (end > slot_end_.load(std::memory_order_relaxed)) {
        slot_end_.store(end, std::memory_order_release);
    }
    live_count_.fetch_add(slots.size(), std::memory_order_release);
    held_count_.fetch_add(slots.size(), std::memory_order_relaxed);
}

std::size_t SlotIndex::remove(std::span<const Slot> slots) {
    reclaim();
    std::vector<Slot> gone;
    gone.reserve(slots.size());
    for (const Slot slot : slots) {
        if (contains(slot)) {
            live_.row(slot / 64)->fetch_and(~(std::uint64_t{1} << (slot % 64)), std::memory_order_release);
            gone.push_back(slot);
        }
    }
    live_count_.fetch_sub(gone.size(), std::memory_order_release);
    if (has_learned()) {
        drop(gone);
    } else {
        retire(gone);
    }
    return gone.size();
}

void SlotIndex::retire(std::span<const Slot> slots) {
    if (slots.empty()) {
        return;
    }
    const Epochs::Ticket ticket = epochs_.ticket();
    for (const Slot slot : slots) {
        retired_.push_back({slot, has_learned(), ticket});
    }
}

void SlotIndex::reclaim() {
    std::vector<Slot> free;
    std::vector<Slot> placed;
    Epochs::Ticket known = 0;
    while (!retired_.empty()) {
        const Retired& first = retired_.front();
        if (first.ticket != known && !epochs_.passed(first.ticket)) {
            break;
        }
        known = first.ticket;
        free.push_back(first.slot);
        if (first.placed) {
            placed.push_back(first.slot);
        }
        held_[first.slot] = false;
        retired_.pop_front();
    }
    if (!free.empty()) {
        held_count_.fetch_sub(free.size(), std::memory_order_relaxed);
        release(placed);
        freed_.insert(freed_.end(), free.begin(), free.end());
    }
}

void SlotIndex::consolidate(std::size_t threads) {
    if (threads < 1) {
        throw InvalidArgument("threads must be >= 1, got 0");
    }
    tidy(threads);
    reclaim();
}

std::vector<Slot> SlotIndex::take_free() {
    reclaim();
    return std::exchange(freed_, {});
}

void SlotIndex::check_queries(std::span<const float> queries, std::size_t k, const char* what) const {
    if (k < 1) {
        throw InvalidArgument("k must be >= 1, got 0");
    }
    if (queries.size() % options_.dimension != 0) {
        throw InvalidArgument("queries must be rows of dimension " + std::to_string(options_.dimension) + ", got " +
                              std::to_string(queries.size()) + " values");
    }
    require_vectors(queries, options_.dimension, false, what);
}

std::size_t SlotIndex::candidates(std::size_t k) const {
    if (codec_.exact() && !fine_) {
        return k;
    }
    std::size_t factor = options_.rerank_factor;
    if (factor == 0) {
        factor = options_.storage == Storage::bit1 ? 16 : options_.storage == Storage::int4 ? 4 : 0;
    }
    return factor == 0 ? k + k / 2 + 16 : k * factor + 16;
}

float SlotIndex::score_of(float cost) const {
    switch (options_.metric) {
        case Metric::l2: return std::max(cost, 0.0F);
        case Metric::cosine: return std::clamp(-cost, -1.0F, 1.0F);
        case Metric::inner_product: break;
    }
    return -cost;
}

std::size_t SlotIndex::rank(SearchScratch& scratch, TopK& found, std::size_t k, Slot* slots, float* scores) const {
    const auto candidates = found.sorted();
    if (codec_.exact() && !fine_) {
        const std::size_t count = std::min(k, candidates.size());
        for (std::size_t i = 0; i < count; ++i) {
            slots[i] = static_cast<Slot>(candidates[i].id);
            scores[i] = score_of(candidates[i].cost);
        }
        return count;
    }
    const RowCodec& codec = fine_ ? *fine_ : codec_;
    scratch.rows.clear();
    for (const TopK::Candidate& candidate : candidates) {
        const auto slot = static_cast<Slot>(candidate.id);
        const std::byte* row = fine_ ? fine_rows_->row(slot) : row_of(slot);
        for (std::size_t at = 0; at < codec.row_bytes(); at += cache_line_bytes) {
            __builtin_prefetch(row + at);
        }
        scratch.rows.push_back(row);
    }
    scratch.costs.resize(candidates.size());
    if (fine_) {
        fine_->prepare(scratch.values.data(), scratch.fine_query);
    }
    codec.exact_costs(fine_ ? scratch.fine_query : scratch.query, scratch.rows.data(), scratch.rows.size(),
                      scratch.costs.data());
    TopK best(k);
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        best.push(scratch.costs[i], candidates[i].id);
    }
    std::size_t count = 0;
    for (const TopK::Candidate& candidate : best.sorted()) {
        slots[count] = static_cast<Slot>(candidate.id);
        scores[count++] = score_of(candidate.cost);
    }
    return count;
}

SearchScratch& SlotIndex::scratch_of_thread() {
    thread_local SearchScratch scratch;
    return scratch;
}

void SlotIndex::costs_in_order(const RowCodec::Query& query, const std::byte* const* rows, std::size_t count,
                               std::size_t stride, float* costs) const {
    if (codec_.plain()) {
        codec_.costs(query, rows, count, costs);  // fetches ahead itself
        return;
    }
    const std::size_t burst = std::max<std::size_t>(1, burst_bytes / stride);
    for (std::size_t first = 0; first < count; first += burst) {
        const std::size_t here = std::min(burst, count - first);
        // Addresses behind the end do no harm.
        const auto ahead = reinterpret_cast<std::uintptr_t>(rows[first]) + fetch_ahead_bytes;
        for (std::size_t at = 0; at < here * stride; at += cache_line_bytes) {
            __builtin_prefetch(reinterpret_cast<const void*>(ahead + at));
        }
        codec_.costs(query, rows + first, here, costs + first);
    }
}

void SlotIndex::look_at_fine(SearchScratch& scratch, const Allowed* allowed, TopK& best) const {
    fine_->prepare(scratch.values.data(), scratch.fine_query);
    for (std::size_t i = 0; i < slot_end(); ++i) {
        const auto slot = static_cast<Slot>(i);
        if (is_live(slot) && (allowed == nullptr || is_allowed(*allowed, slot))) {
            const std::byte* row = fine_rows_->row(slot);
            float cost = 0.0F;
            fine_->exact_costs(scratch.fine_query, &row, 1, &cost);
            if (cost <= best.limit()) {
                best.push(cost, slot);
            }
        }
    }
}

// All allowed rows, wherever they lie.
void SlotIndex::look_at_allowed(SearchScratch& scratch, const Allowed& allowed, TopK& best) const {
    const std::byte* rows[block_rows] = {};
    Slot slots[block_rows];
    float costs[block_rows];
    std::size_t count = 0;
    const auto flush = [&] {
        codec_.costs(scratch.query, rows, count, costs);
        for (std::size_t i = 0; i < count; ++i) {
            if (costs[i] <= best.limit()) {
                best.push(costs[i], slots[i]);
            }
        }
        count = 0;
    };
    const std::size_t words = std::min(allowed.size(), (slot_end() + 63) / 64);
    for (std::size_t word = 0; word < words; ++word) {
        for (std::uint64_t mask = allowed[word]; mask != 0; mask &= mask - 1) {
            const auto slot = static_cast<Slot>(word * 64 + static_cast<std::size_t>(std::countr_zero(mask)));
            if (slot >= slot_end() || !is_live(slot)) {
                continue;
            }
            rows[count] = row_of(slot);
            for (std::size_t at = 0; at < codec_.row_bytes(); at += cache_line_bytes) {
                __builtin_prefetch(rows[count] + at);
            }
            slots[count++] = slot;
            if (count == block_rows) {
                flush();
            }
        }
    }
    flush();
}

std::size_t SlotIndex::search_prepared(SearchScratch& scratch, std::size_t k, std::size_t effort, Slot* slots,
                                       float* scores, const Allowed* allowed) const {
    const Epochs::Guard guard = epochs_.enter();
    if (slot_end() == 0) {
        return 0;
    }
    scratch.best.reset(candidates(k));
    if (has_learned()) {
        codec_.prepare(scratch.values.data(), scratch.query);
        find(scratch, effort, allowed, scratch.best);
    } else {
        look_at_fine(scratch, allowed, scratch.best);
    }
    return rank(scratch, scratch.best, k, slots, scores);
}

std::size_t SlotIndex::search(std::span<const float> query, std::size_t k, std::size_t effort, Slot* slots,
                              float* scores, const Allowed* allowed) const {
    if (query.size() != options_.dimension) {
        throw InvalidArgument("a query must have the dimension " + std::to_string(options_.dimension) + ", got " +
                              std::to_string(query.size()));
    }
    check_queries(query, k, "query");
    SearchScratch& scratch = scratch_of_thread();
    scratch.values.assign(query.begin(), query.end());
    normalise(scratch.values);
    return search_prepared(scratch, k, effort, slots, scores, allowed);
}

void SlotIndex::search_batch(std::span<const float> queries, std::size_t k, std::size_t effort, Slot* slots,
                             float* scores, std::size_t* counts, std::size_t threads, const Allowed* allowed) const {
    check_queries(queries, k, "queries");
    if (threads < 1) {
        throw InvalidArgument("threads must be >= 1, got 0");
    }
    const std::size_t dimension = options_.dimension;
    share_work(queries.size() / dimension, threads, 4, [&](std::size_t i) {
        SearchScratch& scratch = scratch_of_thread();
        const auto query = queries.subspan(i * dimension, dimension);
        scratch.values.assign(query.begin(), query.end());
        normalise(scratch.values);
        counts[i] = search_prepared(scratch, k, effort, slots + i * k, scores + i * k, allowed);
    });
}

Hits SlotIndex::range_search(std::span<const float> query, float radius, std::size_t effort,
                             const Allowed* allowed) const {
    return search_until(*this, query, radius, effort, allowed);
}

bool SlotIndex::contains(Slot slot) const { return slot < slot_end() && is_live(slot); }

bool SlotIndex::get(Slot slot, std::span<float> vector) const {
    if (vector.size() != options_.dimension) {
        throw InvalidArgument("vector must have the dimension " + std::to_string(options_.dimension) + ", got " +
                              std::to_string(vector.size()));
    }
    const Epochs::Guard guard = epochs_.enter();
    if (!contains(slot)) {
        return false;
    }
    const std::byte* row = fine_ ? fine_rows_->row(slot) : row_of(slot);
    if (row == nullptr) {
        return false;
    }
    (fine_ ? *fine_ : codec_).decode(row, vector.data());
    return true;
}

std::size_t SlotIndex::size() const { return live_count_.load(std::memory_order_acquire); }

IndexStats SlotIndex::stats() const {
    IndexStats stats;
    stats.size = size();
    const std::size_t held = held_count_.load(std::memory_order_relaxed);
    stats.removed = held - std::min(held, stats.size);
    stats.memory_bytes = kept_bytes() + (fine_ ? slot_end() * fine_rows_->stride() : 0) + slot_end() / 8;
    return stats;
}

std::string SlotIndex::storage_text() const {
    std::string text(storage_name(options_.storage));
    if (fine_) {
        text += " rows, the best " + std::to_string(candidates(10)) + " for 10 scored again from " +
                std::string(storage_name(fine_->storage()));
    }
    return text + (fine_ ? "" : " rows");
}

}  // namespace sage::vdb
