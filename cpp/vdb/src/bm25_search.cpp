// The best documents of a query.
//
// Slots are taken window by window. Within one, the tokens whose bounds together cannot lift a document above the worst
// of the best k are left for later (MaxScore: Turtle and Flood, "Query evaluation: strategies and optimizations", 1995);
// the others' gains are added up in an array, leaf by leaf, leaves that cannot matter are passed over, and only documents
// that may still make it are looked up in the rest. Bounds are those of leaves, so they follow the documents nearby.
//
// Built without contraction of a * b + c: scores are the same to the last bit as those that Python computes.
#include <algorithm>
#include <map>
#include <numeric>
#include <string>

#include "bm25_state.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb {
namespace {

using detail::Impacts;
using detail::Occurrence;
using detail::Occurrences;

constexpr std::size_t window = 4096;
// Bounds are sums in another order than scores: far more than the rounding of either.
constexpr double slack = 1.0 + 1e-9;

struct Scale {
    double flat;
    double slope;
    [[nodiscard]] double gain(double idf, Occurrence o) const {
        const auto count = static_cast<double>(o.count);
        return idf * count / (count + flat + slope * static_cast<double>(o.length));
    }
};

struct Leaf {
    const Occurrences::Leaf* data;
    const Impacts* impacts;
    Slot first;
    Slot last;
    double bound;  // below 0: not yet known
};

// One token of the query.
struct Cursor {
    double idf = 0;  // times how often it is in the query
    std::vector<Leaf> leaves;
    std::size_t at = 0;     // the first leaf that the window or a later one meets
    std::size_t probe = 0;  // the same for single documents
    double bound = 0;       // in this window
};

class Search {
public:
    Search(const detail::Bm25State& state, const std::map<std::string_view, std::size_t>& tokens, std::size_t k,
           const SlotSet* allowed, bool prune)
        : k_(std::min<std::size_t>(k, state.slots.count())), allowed_(allowed), prune_(prune) {
        // One order of summation for each wording of the query.
        for (const auto& [token, weight] : tokens) {
            const Occurrences* found = state.find(token);
            if (found == nullptr) {
                continue;
            }
            Cursor cursor;
            cursor.idf = static_cast<double>(weight) * state.idf(found->size());
            found->for_each_leaf([&cursor](const Occurrences::Leaf& leaf, const Impacts& impacts) {
                cursor.leaves.push_back({&leaf, &impacts, leaf.keys.front(), leaf.keys.back(), -1.0});
            });
            cursors_.push_back(std::move(cursor));
        }
        const double mean = static_cast<double>(state.total_length) / static_cast<double>(state.slots.count());
        scale_ = {state.options.k1 * (1.0 - state.options.b), state.options.k1 * state.options.b / mean};
    }

    std::vector<TextHit> run() {
        scores_.resize(window);
        gains_.resize(cursors_.size());
        order_.resize(cursors_.size());
        std::iota(order_.begin(), order_.end(), std::size_t{0});
        for (std::size_t first = next_slot(0); first != none; first = next_slot(first + window)) {
            first -= first % window;
            take_window(first);
        }
        std::sort_heap(best_.begin(), best_.end(), better);
        return std::move(best_);
    }

private:
    static constexpr std::size_t none = static_cast<std::size_t>(-1);

    // Heap order: the worst on top.
    static bool better(const TextHit& a, const TextHit& b) {
        return a.score != b.score ? a.score > b.score : a.slot < b.slot;
    }
    [[nodiscard]] bool hopeless(double bound) const {
        return prune_ && best_.size() == k_ && bound * slack <= best_.front().score;
    }
    [[nodiscard]] bool is_allowed(Slot slot) const { return allowed_ == nullptr || allowed_->contains(slot); }

    // The first slot from `from` on that a token may be in.
    std::size_t next_slot(std::size_t from) {
        std::size_t next = none;
        for (Cursor& cursor : cursors_) {
            while (cursor.at < cursor.leaves.size() && cursor.leaves[cursor.at].last < from) {
                ++cursor.at;
            }
            if (cursor.at < cursor.leaves.size()) {
                next = std::min(next, std::max<std::size_t>(from, cursor.leaves[cursor.at].first));
            }
        }
        return next;
    }

    [[nodiscard]] bool any_allowed(std::size_t first) const {
        if (allowed_ == nullptr) {
            return true;
        }
        const auto words = allowed_->words();
        const std::size_t begin = std::min(words.size(), first / 64);
        const std::size_t end = std::min(words.size(), (first + window) / 64);
        return std::any_of(words.begin() + static_cast<std::ptrdiff_t>(begin),
                           words.begin() + static_cast<std::ptrdiff_t>(end), [](std::uint64_t word) { return word != 0; });
    }

    double bound_of(const Cursor& cursor, Leaf& leaf) const {
        if (leaf.bound < 0) {
            for (std::uint32_t i = 0; i < leaf.impacts->size; ++i) {
                leaf.bound = std::max(leaf.bound, scale_.gain(cursor.idf, leaf.impacts->items[i]));
            }
        }
        return leaf.bound;
    }

    void take_window(std::size_t first) {
        if (!any_allowed(first)) {
            return;
        }
        const std::size_t end = first + window;
        double total = 0;
        for (Cursor& cursor : cursors_) {
            cursor.bound = 0;
            while (cursor.at < cursor.leaves.size() && cursor.leaves[cursor.at].last < first) {
                ++cursor.at;
            }
            for (std::size_t leaf = cursor.at; leaf < cursor.leaves.size() && cursor.leaves[leaf].first < end; ++leaf) {
                cursor.bound = std::max(cursor.bound, bound_of(cursor, cursor.leaves[leaf]));
            }
            total += cursor.bound;
        }
        if (hopeless(total)) {
            return;
        }
        // What is left for later: as many of the weakest as cannot make a document on their own.
        std::sort(order_.begin(), order_.end(),
                  [this](std::size_t a, std::size_t b) { return cursors_[a].bound < cursors_[b].bound; });
        later_ = 0;
        double later_bound = 0;
        while (later_ < order_.size() && hopeless(later_bound + cursors_[order_[later_]].bound)) {
            later_bound += cursors_[order_[later_]].bound;
            ++later_;
        }
        std::sort(order_.begin() + static_cast<std::ptrdiff_t>(later_), order_.end());
        for (std::size_t place = later_; place < order_.size(); ++place) {
            add_up(cursors_[order_[place]], first, total);
        }
        take_candidates(first, later_bound);
    }

    // Adds the gains of one token to the scores of the window.
    void add_up(Cursor& cursor, std::size_t first, double total) {
        const std::size_t end = first + window;
        for (std::size_t place = cursor.at; place < cursor.leaves.size() && cursor.leaves[place].first < end; ++place) {
            Leaf& leaf = cursor.leaves[place];
            // Documents of a leaf that is passed over keep too low a score, and their true one is hopeless.
            if (hopeless(bound_of(cursor, leaf) + (total - cursor.bound))) {
                continue;
            }
            const std::vector<Slot>& slots = leaf.data->keys;
            auto i = static_cast<std::size_t>(
                leaf.first >= first ? 0 : std::lower_bound(slots.begin(), slots.end(), first) - slots.begin());
            for (; i < slots.size() && slots[i] < end; ++i) {
                if (!is_allowed(slots[i])) {
                    continue;
                }
                const std::size_t at = slots[i] - first;
                scores_[at] += scale_.gain(cursor.idf, leaf.data->values[i]);
                touched_[at / 64] |= std::uint64_t{1} << (at % 64);
            }
        }
    }

    void take_candidates(std::size_t first, double later_bound) {
        for (std::size_t word = 0; word < touched_.size(); ++word) {
            for (std::uint64_t left = std::exchange(touched_[word], 0); left != 0; left &= left - 1) {
                const std::size_t at = word * 64 + static_cast<std::size_t>(std::countr_zero(left));
                const double score = std::exchange(scores_[at], 0.0);
                if (!hopeless(score + later_bound)) {
                    consider(static_cast<Slot>(first + at), score, later_bound);
                }
            }
        }
    }

    void consider(Slot slot, double score, double later_bound) {
        if (later_ > 0) {
            // The strongest first.
            double sum = score;
            for (std::size_t place = later_; place-- > 0;) {
                Cursor& cursor = cursors_[order_[place]];
                gains_[order_[place]] = look_up(cursor, slot);
                later_bound -= cursor.bound;
                sum += gains_[order_[place]];
                if (hopeless(sum + std::max(later_bound, 0.0))) {
                    return;
                }
            }
            if (order_.size() - later_ == 1) {
                gains_[order_.back()] = score;
            } else {
                for (std::size_t place = later_; place < order_.size(); ++place) {
                    gains_[order_[place]] = look_up(cursors_[order_[place]], slot);
                }
            }
            score = std::accumulate(gains_.begin(), gains_.end(), 0.0);
        }
        // Slots ascend, so of equal scores the first stays.
        if (best_.size() < k_) {
            best_.push_back({slot, score});
            std::push_heap(best_.begin(), best_.end(), better);
        } else if (score > best_.front().score) {
            std::pop_heap(best_.begin(), best_.end(), better);
            best_.back() = {slot, score};
            std::push_heap(best_.begin(), best_.end(), better);
        }
    }

    // The gain of one token in one document; slots are asked in ascending order.
    double look_up(Cursor& cursor, Slot slot) const {
        cursor.probe = std::max(cursor.probe, cursor.at);
        while (cursor.probe < cursor.leaves.size() && cursor.leaves[cursor.probe].last < slot) {
            ++cursor.probe;
        }
        if (cursor.probe == cursor.leaves.size() || cursor.leaves[cursor.probe].first > slot) {
            return 0.0;
        }
        const Occurrences::Leaf& leaf = *cursor.leaves[cursor.probe].data;
        const auto found = std::lower_bound(leaf.keys.begin(), leaf.keys.end(), slot);
        return *found == slot
                   ? scale_.gain(cursor.idf, leaf.values[static_cast<std::size_t>(found - leaf.keys.begin())])
                   : 0.0;
    }

    std::size_t k_;
    const SlotSet* allowed_;
    bool prune_;
    Scale scale_{};
    std::vector<Cursor> cursors_;
    std::vector<TextHit> best_;
    std::vector<double> scores_;
    std::array<std::uint64_t, window / 64> touched_{};
    std::vector<double> gains_;
    std::vector<std::size_t> order_;  // of cursors_: those that are left for later by bound, then the others by name
    std::size_t later_ = 0;
};

std::vector<TextHit> search_with(const detail::Bm25State& state, std::string_view query, std::size_t k,
                                 const SlotSet* allowed, bool prune) {
    if (k < 1) {
        throw InvalidArgument("k must be >= 1, got 0");
    }
    if (query.size() > Bm25Index::document_bytes_max) {
        throw InvalidArgument("a query must have at most " + std::to_string(Bm25Index::document_bytes_max) +
                              " bytes, got " + std::to_string(query.size()));
    }
    Tokenizer tokenizer;
    std::map<std::string_view, std::size_t> tokens;
    for (const std::string_view token : tokenizer.tokens(query)) {
        ++tokens[token];
    }
    return Search(state, tokens, k, allowed, prune).run();
}

}  // namespace

std::vector<TextHit> Bm25Snapshot::search(std::string_view query, std::size_t k, const SlotSet* allowed) const {
    return search_with(*state_, query, k, allowed, true);
}

std::vector<TextHit> Bm25Snapshot::search_all(std::string_view query, std::size_t k, const SlotSet* allowed) const {
    return search_with(*state_, query, k, allowed, false);
}

}  // namespace sage::vdb
