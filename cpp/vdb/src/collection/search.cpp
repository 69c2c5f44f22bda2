#include <algorithm>
#include <cmath>

#include "collection/searcher.hpp"
#include "collection/transaction.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb::detail {
namespace {

// Measured on 60,000 x 128 (bench/collection_bench.cpp). The graph scores so few by itself when no more are allowed, and
// does it faster; the others begin to lose answers that are far apart.
constexpr std::size_t scan_slots_graph = 100;
constexpr std::size_t scan_slots = 3'000;
// From this share on searching for more and looking them up is cheaper than making the whole set: at 0.1 the set took
// half as long, at 0.3 twice as long.
constexpr double after_share = 0.2;
constexpr std::size_t fetch_min = 16;
// How much harder the index looks, at most, when it gave fewer answers than there are.
constexpr std::size_t boost_max = 256;

std::string share_text(double share) {
    const auto tenths = static_cast<long>(std::lround(share * 1000));
    return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " %";
}

}  // namespace

void read_vector(const CollectionState& state, Slot slot, std::span<float> vector) {
    if (!state.parts->tail->get(slot, vector) && state.parts->main) {
        state.parts->main->get(slot, vector);
    }
}

Searcher::Searcher(const CollectionCore& core, const CollectionState& state, const SearchRequest& request)
    : core_(core),
      state_(state),
      request_(request),
      options_(core.options()),
      higher_(higher_is_better(options_.metric)) {
    make_plan();
}

bool Searcher::better(const Found& left, const Found& right) const noexcept {
    return left.score != right.score ? (left.score > right.score) == higher_ : left.head < right.head;
}

std::size_t Searcher::effort(std::size_t k) const {
    if (request_.effort != 0 || !state_.parts || !state_.parts->main) {
        return request_.effort;
    }
    return effort_for(*state_.parts->main, request_.recall, k);
}

void Searcher::make_plan() {
    const bool index = state_.parts && state_.parts->main;
    if (request_.filter) {
        plan_.filter.emplace(*state_.metadata, *request_.filter);
        choose(plan_.filter->estimate());
    } else if (exact() && index) {
        plan_.reason = "a recall of 1 was asked for: every vector is looked at";
    }
    if (exact() && index) {
        // Whatever the filter: only a scan is exact.
        plan_.kind = FilterPlan::before;
    }
    if (plan_.kind == FilterPlan::before || plan_.kind == FilterPlan::in_index) {
        evaluate_filter();
    }
}

void Searcher::choose(const Selectivity& estimate) {
    plan_.selectivity = estimate;
    const double documents = static_cast<double>(state_.documents);
    const double expected = std::clamp(estimate.fraction * documents, static_cast<double>(estimate.at_least),
                                       static_cast<double>(std::max(estimate.at_least, estimate.at_most)));
    const double per_document =
        state_.documents == 0 ? 1 : static_cast<double>(state_.vectors) / documents;
    const double slots = expected * per_document;
    const bool graph = state_.parts && state_.parts->main && state_.parts->main->name() == "graph";
    const std::size_t scanned = graph ? scan_slots_graph : scan_slots;
    const std::string about = "about " + std::to_string(std::llround(expected)) + " of " +
                              std::to_string(state_.documents) + " documents match (" +
                              share_text(documents == 0 ? 0 : expected / documents) + ")";
    if (request_.plan != FilterPlan::automatic) {
        plan_.kind = request_.plan;
        plan_.reason = about + "; the request chose";
    } else if (!state_.parts || !state_.parts->main) {
        plan_.kind = FilterPlan::in_index;
        plan_.reason = about + "; without an index the vectors of the others are passed over";
    } else if (slots <= static_cast<double>(scanned)) {
        plan_.kind = FilterPlan::before;
        plan_.reason = about + "; up to " + std::to_string(scanned) + " vectors are scored one by one, which is exact";
    } else if (expected >= after_share * documents) {
        plan_.kind = FilterPlan::after;
        plan_.reason = about + "; from " + share_text(after_share) + " on the answers are searched without the filter and checked";
    } else {
        plan_.kind = FilterPlan::in_index;
        const auto allowed = static_cast<std::size_t>(slots);
        plan_.reason = about + "; too many to score one by one, too few to search without the filter: " +
                       state_.parts->main->explain_filter(allowed, request_.k, effort(request_.k));
    }
}

void Searcher::evaluate_filter() {
    if (plan_.filter) {
        plan_.heads.emplace(plan_.filter->evaluate());
    } else {
        plan_.heads.emplace(state_.metadata->slots());
    }
    expand_to_slots();
}

void Searcher::expand_to_slots() {
    if (state_.multiple > 0) {
        plan_.allowed.emplace(*plan_.heads);
        plan_.heads->for_each([this](Slot head) {
            if (state_.list(head) != nullptr) {
                state_.for_each_slot(head, [this](Slot slot) { plan_.allowed->insert(slot); });
            }
        });
    }
    if (plan_.kind == FilterPlan::before) {
        plan_.allowed_slots()->for_each([this](Slot slot) { plan_.few.push_back(slot); });
    }
}

void Searcher::keep_best(std::vector<Found>& found, std::size_t count) const {
    // A document's best vector stands for it.
    std::sort(found.begin(), found.end(), [this](const Found& left, const Found& right) {
        return left.head != right.head ? left.head < right.head : better(left, right);
    });
    found.erase(std::unique(found.begin(), found.end(),
                            [](const Found& left, const Found& right) { return left.head == right.head; }),
                found.end());
    const auto end = found.begin() + static_cast<std::ptrdiff_t>(std::min(count, found.size()));
    std::partial_sort(found.begin(), end, found.end(),
                      [this](const Found& left, const Found& right) { return better(left, right); });
    found.erase(end, found.end());
}

void Searcher::vector_of(Slot slot, std::span<float> vector) const { read_vector(state_, slot, vector); }

std::vector<Found> Searcher::scan(std::span<const float> query, std::size_t count) const {
    const auto& kernels = distance::kernels();
    const std::size_t dimension = options_.dimension;
    std::vector<float> buffer(dimension);
    std::vector<Found> found;
    found.reserve(plan_.few.size());
    for (const Slot slot : plan_.few) {
        const float* row = state_.parts->tail->row(slot);
        if (row == nullptr) {
            vector_of(slot, buffer);
            row = buffer.data();
        }
        const float score = options_.metric == Metric::l2 ? kernels.l2_squared(query.data(), row, dimension)
                                                          : kernels.inner_product(query.data(), row, dimension);
        found.push_back({state_.info(slot).head, score});
    }
    keep_best(found, count);
    return found;
}

void Searcher::gather(std::span<const Slot> slots, std::span<const float> scores, std::vector<Found>& best) const {
    for (std::size_t i = 0; i < slots.size(); ++i) {
        // Slots that this version does not know hold vectors of others.
        const Slot head = state_.info(slots[i]).head;
        if (head != no_head && (plan_.kind != FilterPlan::after || plan_.filter->matches(head))) {
            best.push_back({head, scores[i]});
        }
    }
}

std::size_t Searcher::effort_of(std::size_t fetch, std::size_t boost) const {
    const std::string_view name = state_.parts->main->name();
    const bool candidates = name == "graph" || name == "hnsw";
    return std::max(effort(fetch) * boost, candidates ? fetch : 1);
}

bool Searcher::look(std::span<const float> query, std::size_t fetch, std::size_t boost, std::vector<Found>& best) const {
    const Parts& parts = *state_.parts;
    const SlotSet* set = plan_.allowed_slots();
    const Words words = set == nullptr ? Words() : set->words();
    const Words* allowed = set == nullptr ? nullptr : &words;
    std::vector<Slot> slots(fetch);
    std::vector<float> scores(fetch);
    const std::size_t in_tail = parts.tail->search(query, fetch, allowed, slots.data(), scores.data());
    gather(std::span(slots).first(in_tail), scores, best);
    if (!parts.main) {
        return in_tail < fetch;
    }
    const std::size_t in_main =
        parts.main->search(query, fetch, effort_of(fetch, boost), slots.data(), scores.data(), allowed);
    gather(std::span(slots).first(in_main), scores, best);
    return in_tail < fetch && in_main < fetch;
}

std::size_t Searcher::first_fetch(std::size_t count) const {
    double fetch = static_cast<double>(count);
    if (state_.multiple > 0) {
        fetch *= std::min(4.0, static_cast<double>(state_.vectors) / static_cast<double>(state_.documents));
    }
    if (plan_.kind == FilterPlan::after) {
        fetch = fetch / std::max(0.01, plan_.selectivity.fraction) * 1.2 + static_cast<double>(fetch_min);
    }
    return std::min(static_cast<std::size_t>(fetch) + std::min<std::size_t>(core_.pending(), count),
                    state_.vectors + core_.pending() + 1);
}

std::vector<float> Searcher::prepared(std::span<const float> queries) const {
    std::vector<float> rows(queries.begin(), queries.end());
    if (options_.metric == Metric::cosine) {
        std::vector<RowLength> lengths;
        CollectionOptions plain = options_;
        plain.storage = Storage::float32;
        prepare_rows(plain, rows, lengths);
    }
    return rows;
}

std::vector<Found> Searcher::nearest(std::span<const float> query, std::size_t count) const {
    if (state_.documents == 0 || count == 0) {
        return {};
    }
    const std::vector<float> asked = prepared(query);
    if (plan_.kind == FilterPlan::before) {
        return scan(asked, count);
    }
    const std::size_t there = plan_.heads ? plan_.heads->count() : plan_.filter ? 0 : state_.documents;
    std::vector<Found> best;
    std::size_t boost = 1;
    for (std::size_t fetch = first_fetch(count);;) {
        best.clear();
        const bool all = look(asked, fetch, boost, best);
        keep_best(best, count);
        if (best.size() >= count) {
            return best;
        }
        if (!all && fetch <= state_.vectors + core_.pending()) {
            fetch *= 2;
        } else if (state_.parts->main && best.size() < there && boost < boost_max) {
            boost *= 4;
        } else {
            return best;
        }
    }
}

bool Searcher::answers_batches() const noexcept {
    return state_.parts && state_.parts->main && plan_.kind != FilterPlan::before && request_.texts.empty() &&
           !request_.group_by && !request_.mmr && !request_.radius;
}

std::vector<std::vector<Found>> Searcher::batch(std::size_t threads) const {
    const std::size_t dimension = options_.dimension;
    const std::size_t count = request_.queries.size() / dimension;
    const std::vector<float> asked = prepared(request_.queries);
    const SlotSet* set = plan_.allowed_slots();
    const Words words = set == nullptr ? Words() : set->words();
    const Words* allowed = set == nullptr ? nullptr : &words;
    const std::size_t fetch = first_fetch(request_.k);
    std::vector<Slot> slots(count * fetch);
    std::vector<float> scores(count * fetch);
    std::vector<std::size_t> found(count);
    const Parts& parts = *state_.parts;
    parts.main->search_batch(asked, fetch, effort_of(fetch, 1), slots.data(), scores.data(), found.data(), threads, allowed);
    std::vector<std::vector<Found>> answers(count);
    std::vector<Slot> tail_slots(fetch);
    std::vector<float> tail_scores(fetch);
    for (std::size_t i = 0; i < count; ++i) {
        const auto query = std::span(asked).subspan(i * dimension, dimension);
        gather(std::span(slots).subspan(i * fetch, found[i]), std::span(scores).subspan(i * fetch, found[i]), answers[i]);
        const std::size_t in_tail = parts.tail->search(query, fetch, allowed, tail_slots.data(), tail_scores.data());
        gather(std::span(tail_slots).first(in_tail), tail_scores, answers[i]);
        keep_best(answers[i], request_.k);
        if (answers[i].size() < request_.k) {
            answers[i] = nearest(query, request_.k);
        }
    }
    return answers;
}

void append_documents(const CollectionOptions& options, const CollectionState& state, std::span<const Slot> heads,
                      const Include& include, DocumentList& out) {
    if (count_of(out.ids) == 0) {
        out.ids = state.empty_ids();
    }
    for (const Slot head : heads) {
        state.append_id(head, out.ids);
        if (include.vectors) {
            std::uint32_t count = 0;
            state.for_each_slot(head, [&](Slot slot) {
                const std::size_t at = out.vectors.size();
                out.vectors.resize(at + options.dimension);
                const auto row = std::span(out.vectors).subspan(at);
                read_vector(state, slot, row);
                restore_vector(row, state.info(slot).length, state.correction(slot));
                ++count;
            });
            out.vector_counts.push_back(count);
        }
        if (include.metadata) {
            out.metadata.push_back(state.metadata->get(head));
        }
        if (include.text) {
            const TextRef* text = state.text(head);
            out.texts.push_back(text == nullptr ? std::nullopt : std::optional(std::string(text->view())));
        }
    }
}

}  // namespace sage::vdb::detail
