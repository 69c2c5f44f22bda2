// Walking over the graph, and the exact scores at the end.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "graph_core.hpp"

namespace sage::vdb {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
// Of so many of the best candidates the links are fetched before their turn comes.
constexpr std::size_t links_ahead = 3;
// Of the lists with the nearest centres a search with a filter looks into two and one per so much effort, or more until
// it has met so many allowed slots per candidate kept.
constexpr std::size_t lists_per_effort = 4;
constexpr std::size_t codes_per_effort = 8;
// They are fewer where fewer slots are allowed than this share, by the square root of the quotient.
constexpr double share_of_full_effort = 0.1;
constexpr double fewer_min = 0.2;
// What it takes, in entries of a list that are looked at: a word of the bitmap, a cache line of a centre and of a code.
constexpr double word_cost = 2.0;
constexpr double centre_line_cost = 2.0;
constexpr double code_line_cost = 2.5;
constexpr std::size_t words_per_sample = 8;

void prefetch(const void* from, std::size_t bytes) {
    const char* at = static_cast<const char*>(from);
    for (std::size_t i = 0; i < bytes; i += cache_line_bytes) {
        // Into the L2 cache: the lines of a batch come faster than the L1 cache has places to wait for them.
        __builtin_prefetch(at + i, 0, 2);
    }
}

bool is_allowed(std::span<const std::uint64_t> allowed, Slot slot) {
    return slot / 64 < allowed.size() && (allowed[slot / 64] >> (slot % 64) & 1U) != 0;
}

bool better(const Candidate& a, const Candidate& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.slot() < b.slot();
}

}  // namespace

float Pool::limit_of(bool full) const noexcept { return full ? entries_[size_ - 1].cost : infinity; }

std::size_t Pool::insert(float cost, Slot slot) {
    std::size_t low = 0;
    std::size_t high = size_;
    while (low < high) {
        const std::size_t middle = (low + high) / 2;
        if (entries_[middle].cost <= cost) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    // When full the last one falls off: there is room for one more behind.
    std::memmove(entries_.data() + low + 1, entries_.data() + low, (size_ - low) * sizeof(Candidate));
    entries_[low] = {cost, slot};
    size_ = std::min(size_ + 1, room_);
    next_ = std::min(next_, low);
    return low;
}

Slot Pool::follow_next() {
    if (next_ >= size_) {
        return no_slot;
    }
    const Slot slot = entries_[next_].slot();
    entries_[next_].marked_slot |= Candidate::mark;
    do {
        ++next_;
    } while (next_ < size_ && entries_[next_].followed());
    return slot;
}

void Visited::reset(std::size_t slots) {
    const std::size_t words = (slots + 63) / 64;
    if (met_.size() < words_.size() / 8) {
        for (const Slot slot : met_) {
            words_[slot / 64] = 0;
        }
    } else {
        std::fill(words_.begin(), words_.end(), 0);
    }
    met_.clear();
    if (words_.size() < words) {
        words_.resize(words + words / 4);
    }
}

ContextPool::~ContextPool() {
    for (std::atomic<Context*>& place : free_) {
        const std::unique_ptr<Context> owned(place.load(std::memory_order_acquire));
    }
}

std::unique_ptr<Context> ContextPool::take() {
    for (std::atomic<Context*>& place : free_) {
        if (place.load(std::memory_order_relaxed) != nullptr) {
            if (Context* context = place.exchange(nullptr, std::memory_order_acquire); context != nullptr) {
                return std::unique_ptr<Context>(context);
            }
        }
    }
    return std::make_unique<Context>();
}

void ContextPool::give(std::unique_ptr<Context> context) noexcept {
    for (std::atomic<Context*>& place : free_) {
        Context* nothing = nullptr;
        if (place.load(std::memory_order_relaxed) == nullptr &&
            place.compare_exchange_strong(nothing, context.get(), std::memory_order_release)) {
            static_cast<void>(context.release());
            return;
        }
    }
}

void GraphIndex::Core::prefetch_code(Slot slot) const {
    prefetch(codes->row(slot), transform.stride);
    __builtin_prefetch(norms->row(slot));
}

// Costs of context.batch, into context.scores: the squared distance to the query less what all have in common.
void GraphIndex::Core::score_batch(Context& context) const {
    const std::size_t count = context.batch.size();
    context.codes.resize(count);
    context.products.resize(count);
    context.scores.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
        context.codes[i] = codes->row(context.batch[i]);
    }
    kernels.byte_product_rows(context.query.bytes.data(), context.codes.data(), count, transform.stride,
                              context.products.data());
    const float factor = 2.0F * transform.step * context.query.step;
    for (std::size_t i = 0; i < count; ++i) {
        context.scores[i] = *norms->row(context.batch[i]) -
                            factor * static_cast<float>(context.products[i] - context.query.offset);
    }
}

// The greedy search of the paper (algorithm 1) with a pool of `effort` candidates; leaves them in context.pool.
// `followed`, if given, takes every node whose links were followed.
void GraphIndex::Core::walk(Context& context, std::size_t effort, std::vector<Candidate>* followed) const {
    Pool& pool = context.pool;
    pool.reset(effort);
    context.visited.reset(slot_end.load(std::memory_order_acquire));
    const Slot start = entry.load(std::memory_order_acquire);
    if (start == no_slot) {
        return;
    }
    context.batch.assign(1, start);
    context.visited.add(start);
    score_batch(context);
    pool.insert(context.scores[0], start);
    const std::size_t width = links->stride();
    const std::size_t link_bytes = width * sizeof(Links);
    context.batch.resize(width);
    for (;;) {
        if (followed != nullptr && pool.next() < pool.candidates().size()) {
            followed->push_back(pool.candidates()[pool.next()]);
        }
        const Slot slot = pool.follow_next();
        if (slot == no_slot) {
            return;
        }
        const Links* row = links->row(slot);
        std::size_t count = 0;
        context.batch.resize(width);
        for (std::size_t i = 0; i < width; ++i) {
            const Slot neighbour = row[i].load(std::memory_order_acquire);
            if (neighbour == no_slot) {
                break;
            }
            // A node may be linked that came after this search began and that it has no room to mark.
            if (context.visited.covers(neighbour) && context.visited.add(neighbour)) {
                prefetch_code(neighbour);
                context.batch[count++] = neighbour;
            }
        }
        if (const Slot next = pool.peek(); next != no_slot) {
            prefetch(links->row(next), link_bytes);
        }
        context.batch.resize(count);
        score_batch(context);
        for (std::size_t i = 0; i < count; ++i) {
            const float cost = context.scores[i];
            if (cost < pool.limit() && pool.insert(cost, context.batch[i]) < pool.next() + links_ahead) {
                prefetch(links->row(context.batch[i]), link_bytes);
            }
        }
    }
}

// Offers the pool codes. While those of a block are on their way from memory, the block before is scored.
class GraphIndex::Core::BlockScan {
public:
    BlockScan(const Core& core, Context& context)
        : core_(core), context_(context), filling_(context.blocks.data()), waiting_(filling_ + 1) {
        filling_->size = 0;
        waiting_->size = 0;
        limit_ = context.pool.limit();
    }
    void add(Slot slot) {
        const std::uint8_t* code = core_.codes->row(slot);
        for (std::size_t line = 0; line < core_.transform.stride; line += cache_line_bytes) {
            __builtin_prefetch(code + line);
        }
        filling_->codes[filling_->size] = code;
        filling_->norms[filling_->size] = *core_.norms->row(slot);
        filling_->slots[filling_->size] = slot;
        if (++filling_->size == ScanBlock::room) {
            score(*waiting_);
            std::swap(filling_, waiting_);
            filling_->size = 0;
        }
    }
    void finish() {
        score(*waiting_);
        score(*filling_);
    }

private:
    void score(const ScanBlock& block) {
        const Transform& transform = core_.transform;
        const CodeQuery& query = context_.query;
        std::array<std::int32_t, ScanBlock::room> products;
        core_.kernels.byte_product_rows(query.bytes.data(), block.codes.data(), block.size, transform.stride,
                                        products.data());
        const float factor = 2.0F * transform.step * query.step;
        for (std::size_t i = 0; i < block.size; ++i) {
            const float cost = block.norms[i] - factor * static_cast<float>(products[i] - query.offset);
            // Few get so far; states are looked at for them alone.
            if (cost < limit_ && core_.is(block.slots[i], live)) {
                context_.pool.insert(cost, block.slots[i]);
                limit_ = context_.pool.limit();
            }
        }
    }

    const Core& core_;
    Context& context_;
    ScanBlock* filling_;
    ScanBlock* waiting_;
    float limit_;
};

// Costs of the centres, into context.scores.
void GraphIndex::Core::score_lists(Context& context, const Partition& from) const {
    const std::size_t lists = from.lists();
    context.products.resize(lists);
    kernels.byte_product_rows(context.query.bytes.data(), from.centre_rows().data(), lists, transform.stride,
                              context.products.data());
    const float factor = 2.0F * transform.step * context.query.step;
    context.scores.resize(lists);
    for (std::size_t list = 0; list < lists; ++list) {
        context.scores[list] = from.centre_norms()[list] -
                               factor * static_cast<float>(context.products[list] - context.query.offset);
    }
}

// The nearest lists in order, by context.scores, into context.near_lists.
void GraphIndex::Core::sort_lists(Context& context, std::size_t count) const {
    Pool& pool = context.near_lists;
    pool.reset(std::min(count, context.scores.size()));
    float limit = pool.limit();
    for (std::size_t list = 0; list < context.scores.size(); ++list) {
        if (context.scores[list] < limit) {
            pool.insert(context.scores[list], static_cast<Slot>(list));
            limit = pool.limit();
        }
    }
}

// Looks at the codes of all live slots but `slot` and `others`, which are sorted.
void GraphIndex::Core::scan_live(Context& context, Slot slot, std::span<const Slot> others) const {
    BlockScan scan(*this, context);
    const Slot end = slot_end.load(std::memory_order_acquire);
    for (Slot at = 0; at < end; ++at) {
        if (at != slot && is(at, live) && !std::binary_search(others.begin(), others.end(), at)) {
            scan.add(at);
        }
    }
    scan.finish();
}

// Looks at the codes of all allowed slots.
void GraphIndex::Core::scan_all(Context& context, std::span<const std::uint64_t> allowed) const {
    BlockScan scan(*this, context);
    const std::size_t end = slot_end.load(std::memory_order_acquire);
    const std::size_t words = std::min(allowed.size(), (end + 63) / 64);
    for (std::size_t word = 0; word < words; ++word) {
        for (std::uint64_t bits = allowed[word]; bits != 0; bits &= bits - 1) {
            const auto slot = static_cast<Slot>(word * 64 + static_cast<std::size_t>(std::countr_zero(bits)));
            // Only of a live one the code is there.
            if (slot < end && is(slot, live)) {
                scan.add(slot);
            }
        }
    }
    scan.finish();
}

// Looks through the lists with the nearest centres for allowed slots, and at their codes.
void GraphIndex::Core::scan_lists(Context& context, const ScanLimits& limits, const Partition& from,
                                  std::span<const std::uint64_t> allowed) const {
    BlockScan scan(*this, context);
    const std::size_t end = std::min<std::size_t>(slot_end.load(std::memory_order_acquire), 64 * allowed.size());
    std::array<Slot, Partition::Block::room + 1> met;
    std::size_t seen = 0;
    for (std::size_t at = 0; at < from.lists() && (seen < limits.codes || at < limits.lists); ++at) {
        if (at == context.near_lists.candidates().size()) {
            sort_lists(context, 4 * at);
        }
        from.each_block(context.near_lists.candidates()[at].slot(), [&](const Partition::Block& block) {
            // Written without branches: which of them are allowed nobody can foretell.
            std::size_t count = 0;
            for (const std::atomic<Slot>& place : block.slots) {
                const Slot slot = place.load(std::memory_order_acquire);
                const bool known = slot < end;
                met[count] = slot;
                count += (allowed[known ? slot / 64 : 0] >> (slot % 64)) & static_cast<std::uint64_t>(known);
            }
            seen += count;
            for (std::size_t i = 0; i < count; ++i) {
                scan.add(met[i]);
            }
        });
    }
    scan.finish();
}

// How a search goes about a filter that allows about `count` slots and has so many words.
ScanLimits GraphIndex::Core::plan_scan(std::size_t keep, std::size_t effort, double count, std::size_t words,
                                       const Partition& from) const {
    const auto lists = static_cast<double>(from.lists());
    const double size = static_cast<double>(live_count.load(std::memory_order_relaxed)) + 1.0;
    // The fewer are allowed, the larger a share of them has to be looked at, but the smaller a number.
    const double fewer = std::clamp(std::sqrt(count / (share_of_full_effort * size)), fewer_min, 1.0);
    ScanLimits limits{};
    limits.lists = 2 + effort / lists_per_effort;
    limits.codes = keep + static_cast<std::size_t>(fewer * static_cast<double>(codes_per_effort * effort));
    // What both ways take, in entries of a list.
    const auto codes_wanted = static_cast<double>(limits.codes);
    const double share = std::max(static_cast<double>(limits.lists) / lists, codes_wanted / (count + 1.0));
    const double lines = static_cast<double>(transform.stride) / static_cast<double>(cache_line_bytes);
    const double by_lists = share * size + lists * lines * centre_line_cost + codes_wanted * lines * code_line_cost;
    const double by_all = static_cast<double>(words) * word_cost + count * lines * code_line_cost;
    limits.all = by_all <= by_lists;
    limits.lists_expected = static_cast<std::size_t>(std::min(lists, std::ceil(share * lists)));
    return limits;
}

// Leaves the best allowed candidates in context.pool.
void GraphIndex::Core::scan(Context& context, std::size_t keep, std::size_t effort, const Partition& from,
                            std::span<const std::uint64_t> allowed) const {
    context.pool.reset(keep);
    // How many are allowed, from a part of the words.
    std::size_t sampled = 0;
    for (std::size_t word = 0; word < allowed.size(); word += words_per_sample) {
        sampled += static_cast<std::size_t>(std::popcount(allowed[word]));
    }
    const auto count = static_cast<double>(sampled * words_per_sample);
    const ScanLimits limits = plan_scan(keep, effort, count, allowed.size(), from);
    if (limits.all) {
        scan_all(context, allowed);
        return;
    }
    score_lists(context, from);
    sort_lists(context, 4 + limits.lists_expected + limits.lists_expected / 4);
    scan_lists(context, limits, from, allowed);
}

// Scores as the caller knows them, from the rows.
void GraphIndex::Core::exact_scores(Context& context, std::span<const Slot> of, float* scores) const {
    constexpr std::size_t ahead = 4;
    const float* query = context.exact_query.data();
    for (std::size_t i = 0; i < std::min(ahead, of.size()); ++i) {
        prefetch(rows.row(of[i]), row_bytes);
    }
    const bool squared = metric == Metric::l2;
    for (std::size_t i = 0; i < of.size(); ++i) {
        if (i + ahead < of.size()) {
            prefetch(rows.row(of[i + ahead]), row_bytes);
        }
        const std::byte* row = rows.row(of[i]);
        if (options.rows == RowFormat::float32) {
            const auto* values = reinterpret_cast<const float*>(row);
            (squared ? kernels.float_l2_squared_rows : kernels.float_product_rows)(query, &values, 1, dimension,
                                                                                  scores + i);
            continue;
        }
        const auto* values = reinterpret_cast<const std::uint16_t*>(row);
        const bool brain = options.rows == RowFormat::bfloat16;
        const auto kernel = squared ? (brain ? kernels.bfloat16_l2_squared_rows : kernels.float16_l2_squared_rows)
                                    : (brain ? kernels.bfloat16_product_rows : kernels.float16_product_rows);
        kernel(query, &values, 1, dimension, scores + i);
    }
    if (metric == Metric::cosine) {
        std::transform(scores, scores + of.size(), scores, [](float x) { return std::clamp(x, -1.0F, 1.0F); });
    }
}

// How many candidates are scored exactly for the best k. The codes order all but exactly: what is some places behind the
// k-th cannot come before it. More of it where they keep less.
std::size_t GraphIndex::Core::ranked_of(std::size_t k) const {
    const float lost = std::clamp(1.0F - transform.energy, 0.0F, 1.0F);
    return k + 4 + k / 8 + static_cast<std::size_t>(20.0F * lost * static_cast<float>(k));
}

// Scores the best candidates exactly and gives the best k of them.
std::size_t GraphIndex::Core::rank(Context& context, std::size_t k, Slot* slots, float* scores) const {
    const std::size_t wanted = ranked_of(k);
    context.batch.clear();
    for (const Candidate& candidate : context.pool.candidates()) {
        if (context.batch.size() == wanted) {
            break;
        }
        if (is(candidate.slot(), live)) {
            context.batch.push_back(candidate.slot());
        }
    }
    context.scores.resize(context.batch.size());
    exact_scores(context, context.batch, context.scores.data());
    context.ranked.clear();
    const float sign = higher_is_better(metric) ? -1.0F : 1.0F;
    for (std::size_t i = 0; i < context.batch.size(); ++i) {
        context.ranked.push_back({sign * context.scores[i], context.batch[i]});
    }
    const std::size_t count = std::min(k, context.ranked.size());
    std::partial_sort(context.ranked.begin(), context.ranked.begin() + static_cast<std::ptrdiff_t>(count),
                      context.ranked.end(), better);
    for (std::size_t i = 0; i < count; ++i) {
        slots[i] = context.ranked[i].slot();
        scores[i] = sign * context.ranked[i].cost;
    }
    return count;
}

// Before there is a graph: every live row.
std::size_t GraphIndex::Core::search_all(Context& context, std::size_t k, Slot* slots, float* scores,
                                         const std::span<const std::uint64_t>* allowed) const {
    const Slot end = slot_end.load(std::memory_order_acquire);
    context.batch.clear();
    for (Slot slot = 0; slot < end; ++slot) {
        if (is(slot, live) && (allowed == nullptr || is_allowed(*allowed, slot))) {
            context.batch.push_back(slot);
        }
    }
    context.scores.resize(context.batch.size());
    exact_scores(context, context.batch, context.scores.data());
    const float sign = higher_is_better(metric) ? -1.0F : 1.0F;
    context.ranked.clear();
    for (std::size_t i = 0; i < context.batch.size(); ++i) {
        context.ranked.push_back({sign * context.scores[i], context.batch[i]});
    }
    const std::size_t count = std::min(k, context.ranked.size());
    std::partial_sort(context.ranked.begin(), context.ranked.begin() + static_cast<std::ptrdiff_t>(count),
                      context.ranked.end(), better);
    for (std::size_t i = 0; i < count; ++i) {
        slots[i] = context.ranked[i].slot();
        scores[i] = sign * context.ranked[i].cost;
    }
    return count;
}

std::size_t GraphIndex::Core::search(std::span<const float> query, std::size_t k, std::size_t effort, Slot* slots,
                                     float* scores, const std::span<const std::uint64_t>* allowed) const {
    const ContextPool::Lease lease(contexts);
    Context& context = *lease;
    const Epochs::Guard guard = epochs.enter();
    context.exact_query.assign(query.begin(), query.end());
    if (metric == Metric::cosine) {
        const float length = std::sqrt(distance::kernels().inner_product(query.data(), query.data(), dimension));
        const float scale = length > 1e-30F ? 1.0F / length : 0.0F;
        for (float& value : context.exact_query) {
            value *= scale;
        }
    }
    if (!trained.load(std::memory_order_acquire)) {
        return search_all(context, k, slots, scores, allowed);
    }
    encode_query(transform, metric, context.exact_query.data(), context.query, context.buffers);
    const std::size_t kept = std::max(effort, k);
    if (allowed == nullptr) {
        // Removed nodes that are still linked take places among the candidates.
        const std::size_t live_ones = std::max<std::size_t>(live_count.load(std::memory_order_relaxed), 1);
        const std::size_t others = std::min(removed_count.load(std::memory_order_relaxed), live_ones);
        walk(context, kept + (kept * others + live_ones - 1) / live_ones, nullptr);
        return rank(context, k, slots, scores);
    }
    const Partition* lists = partition.load(std::memory_order_acquire);
    if (lists == nullptr) {
        return search_all(context, k, slots, scores, allowed);
    }
    scan(context, ranked_of(k), kept, *lists, *allowed);
    return rank(context, k, slots, scores);
}

}  // namespace sage::vdb
