// Inverted lists: every vector lies in the list of its nearest centre, a search looks at the lists whose centres are
// nearest to the query (Sivic & Zisserman, "Video Google", ICCV 2003; Jegou et al., TPAMI 2011, section IV).
//
// Lists are chains of blocks of 64 rows. A list that grows too long is split in two: its rows are copied into new lists
// and a new partition is published; readers of the old one finish on the old lists.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <unordered_map>

#include "kmeans.hpp"
#include "sage/common/error.hpp"
#include "slot_index.hpp"

namespace sage::vdb {
namespace {

constexpr std::size_t list_rows_min = 256;
constexpr Slot nobody = ~Slot{0};

struct Block;

struct List {
    std::atomic<Block*> first{nullptr};
    // Of the writer alone.
    std::size_t rows = 0;
    std::size_t split_at = 0;               // 0: by the size of the index
    std::vector<std::uintptr_t> free;       // homes that nobody has or reads

    List() = default;
    List(const List&) = delete;
    List& operator=(const List&) = delete;
    ~List();
};

// The rows lie behind it.
struct alignas(cache_line_bytes) Block {
    Block* next;  // set before the block is published
    std::atomic<std::uint64_t> live;
    List* list;
    std::size_t bytes;
    Slot slots[block_rows];

    [[nodiscard]] std::byte* row(std::size_t place, std::size_t stride) {
        return reinterpret_cast<std::byte*>(this + 1) + place * stride;
    }
};

List::~List() {
    for (Block* block = first.load(std::memory_order_relaxed); block != nullptr;) {
        Block* next = block->next;
        const std::size_t bytes = block->bytes;
        block->~Block();
        deallocate_aligned(block, bytes, cache_line_bytes);
        block = next;
    }
}

// A block and a place in it, in one word: blocks start at multiples of 64.
std::uintptr_t home_of(const Block* block, std::size_t place) {
    return reinterpret_cast<std::uintptr_t>(block) + place;
}
Block* block_of(std::uintptr_t home) { return reinterpret_cast<Block*>(home & ~std::uintptr_t{63}); }
std::size_t place_of(std::uintptr_t home) { return home & 63U; }

struct Partition {
    AlignedVector<float> centres;
    std::vector<std::shared_ptr<List>> lists;
};

// Of a searching thread.
struct Probes {
    std::vector<float> costs;
    std::vector<std::uint32_t> order;
};

class IvfIndex final : public SlotIndex {
public:
    explicit IvfIndex(const IndexOptions& options) : SlotIndex(options), stride_((codec_.row_bytes() + 15) / 16 * 16) {}
    ~IvfIndex() override = default;

    [[nodiscard]] std::string_view name() const noexcept override { return "ivf_flat"; }
    [[nodiscard]] std::string explain() const override;
    [[nodiscard]] IndexStats stats() const override {
        IndexStats stats = SlotIndex::stats();
        const Epochs::Guard guard = epochs_.enter();
        const Partition* partition = current_.load(std::memory_order_acquire);
        stats.lists = partition == nullptr ? 0 : partition->lists.size();
        return stats;
    }

protected:
    void place(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) override;
    void drop(std::span<const Slot> slots) override;
    void release(std::span<const Slot> slots) override;
    void tidy(std::size_t /*threads*/) override { discard(); }
    void find(SearchScratch& scratch, std::size_t effort, const Allowed* allowed, TopK& best) const override;
    [[nodiscard]] const std::byte* row_of(Slot slot) const override {
        const std::uintptr_t home = homes_.row(slot)->load(std::memory_order_acquire);
        return home == 0 ? nullptr : block_of(home)->row(place_of(home), stride_);
    }
    [[nodiscard]] std::size_t kept_bytes() const override { return memory_.load(std::memory_order_relaxed); }
    void save_more(ByteWriter& out, std::span<const Slot> held) const override;
    void load_rows(IndexReader& in, std::span<const Slot> held, const std::vector<bool>& live,
                   std::span<const std::byte> rows) override;

private:
    void reserve_homes(std::size_t end);
    std::uintptr_t room_in(List& list);
    void enter(List& list, Slot slot, const std::byte* row);
    void publish_partition(std::unique_ptr<Partition> next);
    void begin(std::span<const float> vectors, std::size_t threads);
    void split_long();
    bool split(const std::shared_ptr<List>& list, std::shared_ptr<List> (&halves)[2], AlignedVector<float>& centres);
    void discard();
    void look(SearchScratch& scratch, const List& list, const Allowed* allowed, TopK& best) const;

    const std::size_t stride_;
    SlotArray<std::atomic<std::uintptr_t>> homes_{1};  // of live slots, and what their readers may still use
    std::atomic<const Partition*> current_{nullptr};
    std::atomic<std::size_t> memory_{0};
    // Of the writer alone.
    std::unique_ptr<Partition> owned_;
    std::vector<std::uintptr_t> places_;  // of held slots; 0 when a split has left it behind
    struct Garbage {
        Epochs::Ticket ticket;
        std::unique_ptr<Partition> partition;
    };
    std::deque<Garbage> garbage_;
};

void IvfIndex::reserve_homes(std::size_t end) {
    homes_.reserve(end, [](std::atomic<std::uintptr_t>* homes, std::size_t count) {
        std::uninitialized_value_construct_n(homes, count);
    });
    if (places_.size() < end) {
        places_.resize(std::max(end, places_.size() + places_.size() / 2), 0);
    }
}

// A place that nobody has; a new block comes in front, so that readers on their way do not meet it.
std::uintptr_t IvfIndex::room_in(List& list) {
    if (list.free.empty()) {
        const std::size_t bytes = sizeof(Block) + block_rows * stride_;
        void* memory = allocate_aligned(bytes, cache_line_bytes);
        auto* block = new (memory) Block{list.first.load(std::memory_order_relaxed), {0}, &list, bytes, {}};
        std::fill(std::begin(block->slots), std::end(block->slots), nobody);
        for (std::size_t place = block_rows; place-- > 0;) {
            list.free.push_back(home_of(block, place));
        }
        list.first.store(block, std::memory_order_release);
        memory_.fetch_add(bytes, std::memory_order_relaxed);
    }
    const std::uintptr_t home = list.free.back();
    list.free.pop_back();
    return home;
}

void IvfIndex::enter(List& list, Slot slot, const std::byte* row) {
    const std::uintptr_t home = room_in(list);
    Block* block = block_of(home);
    const std::size_t place = place_of(home);
    std::copy_n(row, codec_.row_bytes(), block->row(place, stride_));
    block->slots[place] = slot;
    places_[slot] = home;
    homes_.row(slot)->store(home, std::memory_order_release);
    block->live.fetch_or(std::uint64_t{1} << place, std::memory_order_release);
    ++list.rows;
}

void IvfIndex::publish_partition(std::unique_ptr<Partition> next) {
    current_.store(next.get(), std::memory_order_release);
    std::unique_ptr<Partition> before = std::exchange(owned_, std::move(next));
    if (before) {
        garbage_.push_back({epochs_.ticket(), std::move(before)});
    }
}

void IvfIndex::discard() {
    while (!garbage_.empty() && epochs_.passed(garbage_.front().ticket)) {
        for (const auto& list : garbage_.front().partition->lists) {
            if (list.use_count() > 1) {
                continue;
            }
            const Block* block = list->first.load(std::memory_order_relaxed);
            for (; block != nullptr; block = block->next) {
                memory_.fetch_sub(block->bytes, std::memory_order_relaxed);
            }
        }
        garbage_.pop_front();
    }
}

// The first lists: of centres when there is enough to learn from, else one that will be split.
void IvfIndex::begin(std::span<const float> vectors, std::size_t threads) {
    const std::size_t count = vectors.size() / options_.dimension;
    std::size_t lists = options_.lists;
    if (lists == 0) {
        lists = static_cast<std::size_t>(2.0 * std::sqrt(static_cast<double>(count)));
    }
    lists = count < learn_min ? 1 : std::clamp<std::size_t>(lists, 1, count);
    auto partition = std::make_unique<Partition>();
    partition->centres = find_centres(vectors, options_.dimension, lists, threads);
    for (std::size_t i = 0; i < lists; ++i) {
        partition->lists.push_back(std::make_shared<List>());
    }
    publish_partition(std::move(partition));
}

void IvfIndex::place(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) {
    discard();
    reserve_homes(std::size_t{*std::max_element(slots.begin(), slots.end())} + 1);
    if (!owned_) {
        begin(vectors, threads);
    }
    std::vector<std::uint32_t> nearest(slots.size());
    nearest_centres(vectors, options_.dimension, owned_->centres, threads, nearest.data());
    std::vector<std::byte> row(codec_.row_bytes());
    for (std::size_t i = 0; i < slots.size(); ++i) {
        codec_.encode(vectors.data() + i * options_.dimension, row.data());
        enter(*owned_->lists[nearest[i]], slots[i], row.data());
    }
    split_long();
}

// Until no list is too long: a large insert may need several rounds.
void IvfIndex::split_long() {
    for (bool again = true; again;) {
        again = false;
        const auto all = static_cast<double>(held_count_.load(std::memory_order_relaxed));
        std::size_t total = 0;
        for (const auto& list : owned_->lists) {
            total += list->rows;
        }
        const auto limit = std::max(
            list_rows_min, static_cast<std::size_t>(2.0 * std::sqrt(std::max(all, static_cast<double>(total)))));
        std::unique_ptr<Partition> next;
        for (std::size_t i = 0; i < owned_->lists.size(); ++i) {
            List& list = *owned_->lists[i];
            if (list.rows <= std::max(limit, list.split_at)) {
                continue;
            }
            std::shared_ptr<List> halves[2];
            AlignedVector<float> centres;
            if (!split(owned_->lists[i], halves, centres)) {
                list.split_at = list.rows * 2;  // its rows are all alike
                continue;
            }
            if (!next) {
                next = std::make_unique<Partition>(*owned_);
            }
            const auto half = static_cast<std::ptrdiff_t>(options_.dimension);
            std::copy(centres.begin(), centres.begin() + half,
                      next->centres.begin() + static_cast<std::ptrdiff_t>(i) * half);
            next->centres.insert(next->centres.end(), centres.begin() + half, centres.end());
            next->lists[i] = halves[0];
            next->lists.push_back(halves[1]);
        }
        if (next) {
            publish_partition(std::move(next));
            again = true;
        }
    }
}

bool IvfIndex::split(const std::shared_ptr<List>& list, std::shared_ptr<List> (&halves)[2],
                     AlignedVector<float>& centres) {
    const std::size_t dimension = options_.dimension;
    std::vector<std::uintptr_t> homes;
    AlignedVector<float> vectors;
    for (Block* block = list->first.load(std::memory_order_relaxed); block != nullptr; block = block->next) {
        for (std::uint64_t mask = block->live.load(std::memory_order_relaxed); mask != 0; mask &= mask - 1) {
            const auto place = static_cast<std::size_t>(std::countr_zero(mask));
            homes.push_back(home_of(block, place));
            vectors.resize(vectors.size() + dimension);
            codec_.decode(block->row(place, stride_), vectors.data() + vectors.size() - dimension);
        }
    }
    if (homes.size() < 2) {
        return false;
    }
    centres = find_centres(vectors, dimension, 2, 1);
    std::vector<std::uint32_t> nearest(homes.size());
    nearest_centres(vectors, dimension, centres, 1, nearest.data());
    const auto second = static_cast<std::size_t>(std::count(nearest.begin(), nearest.end(), 1U));
    if (second == 0 || second == homes.size()) {
        return false;
    }
    // Removed slots that are not free yet stay behind with their blocks.
    for (Block* block = list->first.load(std::memory_order_relaxed); block != nullptr; block = block->next) {
        for (std::size_t place = 0; place < block_rows; ++place) {
            const Slot slot = block->slots[place];
            if (slot != nobody && places_[slot] == home_of(block, place)) {
                places_[slot] = 0;
            }
        }
    }
    halves[0] = std::make_shared<List>();
    halves[1] = std::make_shared<List>();
    for (std::size_t i = 0; i < homes.size(); ++i) {
        Block* block = block_of(homes[i]);
        const std::size_t place = place_of(homes[i]);
        enter(*halves[nearest[i]], block->slots[place], block->row(place, stride_));
    }
    return true;
}

void IvfIndex::drop(std::span<const Slot> slots) {
    discard();
    for (const Slot slot : slots) {
        Block* block = block_of(places_[slot]);
        block->live.fetch_and(~(std::uint64_t{1} << place_of(places_[slot])), std::memory_order_release);
        --block->list->rows;
    }
    retire(slots);
}

void IvfIndex::release(std::span<const Slot> slots) {
    for (const Slot slot : slots) {
        if (const std::uintptr_t home = std::exchange(places_[slot], 0); home != 0) {
            block_of(home)->slots[place_of(home)] = nobody;
            block_of(home)->list->free.push_back(home);
        }
    }
}

void IvfIndex::look(SearchScratch& scratch, const List& list, const Allowed* allowed, TopK& best) const {
    const std::byte* rows[block_rows];
    std::uint32_t places[block_rows];
    float costs[block_rows];
    for (Block* block = list.first.load(std::memory_order_acquire); block != nullptr; block = block->next) {
        if (block->next != nullptr) {
            __builtin_prefetch(block->next);
            __builtin_prefetch(block->next->slots);
        }
        std::size_t count = 0;
        for (std::uint64_t mask = block->live.load(std::memory_order_acquire); mask != 0; mask &= mask - 1) {
            const auto place = static_cast<std::uint32_t>(std::countr_zero(mask));
            if (allowed == nullptr || is_allowed(*allowed, block->slots[place])) {
                rows[count] = block->row(place, stride_);
                places[count++] = place;
            }
        }
        costs_in_order(scratch.query, rows, count, stride_, costs);
        float limit = best.limit();
        for (std::size_t i = 0; i < count; ++i) {
            if (costs[i] <= limit) {
                best.push(costs[i], block->slots[places[i]]);
                limit = best.limit();
            }
        }
    }
}

void IvfIndex::find(SearchScratch& scratch, std::size_t effort, const Allowed* allowed, TopK& best) const {
    const Partition* partition = current_.load(std::memory_order_acquire);
    if (partition == nullptr) {
        return;
    }
    const std::size_t count = partition->lists.size();
    const std::size_t first = std::clamp<std::size_t>(effort, 1, count);
    if (allowed != nullptr) {
        std::size_t bits = 0;
        for (const std::uint64_t word : *allowed) {
            bits += static_cast<std::size_t>(std::popcount(word));
        }
        // No more rows than the lists to look at have.
        if (bits <= size() / count * first) {
            look_at_allowed(scratch, *allowed, best);
            return;
        }
    }
    thread_local Probes probes;
    probes.costs.resize(count);
    probes.order.resize(count);
    std::iota(probes.order.begin(), probes.order.end(), 0U);
    const distance::Kernels& kernels = distance::kernels();
    const float* query = scratch.query.values.data();
    if (options_.metric == Metric::inner_product) {
        kernels.inner_product_rows(query, partition->centres.data(), count, options_.dimension, probes.costs.data());
        std::transform(probes.costs.begin(), probes.costs.end(), probes.costs.begin(), [](float x) { return -x; });
    } else {
        kernels.l2_squared_rows(query, partition->centres.data(), count, options_.dimension, probes.costs.data());
    }
    const auto nearer = [&](std::uint32_t a, std::uint32_t b) {
        return probes.costs[a] != probes.costs[b] ? probes.costs[a] < probes.costs[b] : a < b;
    };
    const auto middle = probes.order.begin() + static_cast<std::ptrdiff_t>(first);
    if (first < count) {
        std::nth_element(probes.order.begin(), middle, probes.order.end(), nearer);
    }
    std::sort(probes.order.begin(), middle, nearer);
    bool sorted = first == count;
    for (std::size_t i = 0; i < count; ++i) {
        if (i >= first) {
            // Further lists only as long as there are not even enough candidates, as under a filter.
            if (best.limit() != std::numeric_limits<float>::infinity()) {
                break;
            }
            if (!sorted) {
                std::sort(middle, probes.order.end(), nearer);
                sorted = true;
            }
        }
        look(scratch, *partition->lists[probes.order[i]], allowed, best);
    }
}

std::string IvfIndex::explain() const {
    const std::size_t lists = stats().lists;
    return "ivf_flat: asked for; " + std::to_string(size()) + " vectors in " + std::to_string(lists) +
           " lists, about " + std::to_string(lists == 0 ? 0 : size() / lists) +
           " in each, a search looks at as many lists as its effort says, " + storage_text();
}

// The number of lists, their centres, and the list of each slot.
void IvfIndex::save_more(ByteWriter& out, std::span<const Slot> held) const {
    out.fixed(std::uint64_t{owned_ ? owned_->lists.size() : 0});
    if (!owned_) {
        return;
    }
    out.values(owned_->centres.data(), owned_->centres.size());
    std::unordered_map<const List*, std::uint32_t> numbers;
    for (std::size_t i = 0; i < owned_->lists.size(); ++i) {
        numbers.emplace(owned_->lists[i].get(), static_cast<std::uint32_t>(i));
    }
    for (const Slot slot : held) {
        out.fixed(numbers.at(block_of(places_[slot])->list));
    }
}

void IvfIndex::load_rows(IndexReader& in, std::span<const Slot> held, const std::vector<bool>& /*live*/,
                         std::span<const std::byte> rows) {
    const auto count = in.fixed<std::uint64_t>();
    require_bytes(count <= Slot{1} << 24U && (count != 0 || held.empty()), "it has no lists, or too many");
    if (count == 0) {
        return;
    }
    in.require_left(count, options_.dimension * sizeof(float));
    auto partition = std::make_unique<Partition>();
    partition->centres.resize(count * options_.dimension);
    in.values(partition->centres.data(), partition->centres.size());
    require_bytes(std::all_of(partition->centres.begin(), partition->centres.end(),
                              [](float x) { return std::fabs(x) <= 6.5e18F; }),
                  "a centre is not finite");
    for (std::size_t i = 0; i < count; ++i) {
        partition->lists.push_back(std::make_shared<List>());
    }
    std::vector<std::uint32_t> numbers(held.size());
    in.values(numbers.data(), numbers.size());
    reserve_homes(held.empty() ? 0 : std::size_t{held.back()} + 1);
    for (std::size_t i = 0; i < held.size(); ++i) {
        require_bytes(numbers[i] < count, "a list is unknown");
        enter(*partition->lists[numbers[i]], held[i], rows.data() + i * codec_.row_bytes());
    }
    publish_partition(std::move(partition));
}

}  // namespace

std::unique_ptr<SlotIndex> make_ivf_index(const IndexOptions& options) { return std::make_unique<IvfIndex>(options); }

}  // namespace sage::vdb
