// One search in one version of a collection. Internal.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "collection/core.hpp"
#include "sage/vdb/filter.hpp"
#include "sage/vdb/query.hpp"

namespace sage::vdb::detail {

struct Found {
    Slot head;
    float score;
};

// Checked against the collection. Throws InvalidArgument.
void validate_request(const CollectionOptions& options, const SearchRequest& request, bool pages);

// What a filter means in this version, and how it is used. Shared by all queries of a request.
struct Plan {
    FilterPlan kind = FilterPlan::automatic;  // automatic: no filter
    std::string reason;
    Selectivity selectivity{1, 0, 0};
    std::optional<BoundFilter> filter;
    std::optional<SlotSet> heads;    // documents that match, when the filter was evaluated
    std::optional<SlotSet> allowed;  // their vectors, where documents have several
    std::vector<Slot> few;           // plan `before`: their vectors

    [[nodiscard]] const SlotSet* allowed_slots() const {
        return allowed ? &*allowed : heads ? &*heads : nullptr;
    }
};

class Searcher {
public:
    // The view must live as long.
    Searcher(const CollectionCore& core, const CollectionState& state, const SearchRequest& request);

    [[nodiscard]] const Plan& plan() const noexcept { return plan_; }
    // Of an index; `k` answers are wanted.
    [[nodiscard]] std::size_t effort(std::size_t k) const;

    // The best `count` documents, best first.
    [[nodiscard]] std::vector<Found> nearest(std::span<const float> query, std::size_t count) const;
    // What the request asks for, for query `place`.
    [[nodiscard]] std::vector<Found> answer(std::size_t place) const;

    // Whether batch() gives the answers to all queries, faster than answer() would.
    [[nodiscard]] bool answers_batches() const noexcept;
    [[nodiscard]] std::vector<std::vector<Found>> batch(std::size_t threads) const;

    // The vector of a slot as it lies in tail or index.
    void vector_of(Slot slot, std::span<float> vector) const;

private:
    void make_plan();
    void evaluate_filter();
    void choose(const Selectivity& estimate);
    void expand_to_slots();
    [[nodiscard]] std::size_t first_fetch(std::size_t count) const;
    [[nodiscard]] std::vector<Found> scan(std::span<const float> query, std::size_t count) const;
    // One look into both parts, `boost` times as hard as usual; whether they have given all that they found.
    bool look(std::span<const float> query, std::size_t fetch, std::size_t boost, std::vector<Found>& best) const;
    void gather(std::span<const Slot> slots, std::span<const float> scores, std::vector<Found>& best) const;
    [[nodiscard]] std::size_t effort_of(std::size_t fetch, std::size_t boost) const;
    // Of length 1 under cosine.
    [[nodiscard]] std::vector<float> prepared(std::span<const float> queries) const;
    void keep_best(std::vector<Found>& found, std::size_t count) const;
    [[nodiscard]] bool better(const Found& left, const Found& right) const noexcept;

    [[nodiscard]] std::vector<Found> words(std::size_t place, std::size_t count) const;
    [[nodiscard]] std::vector<Found> within(std::span<const float> query) const;
    [[nodiscard]] std::vector<Found> diverse(std::span<const float> query) const;
    [[nodiscard]] std::vector<Found> grouped(std::size_t place) const;
    [[nodiscard]] std::vector<Found> fused(std::size_t place, std::size_t count) const;
    // By vectors, words or both.
    [[nodiscard]] std::vector<Found> plain(std::size_t place, std::size_t count) const;
    [[nodiscard]] std::span<const float> query(std::size_t place) const;
    [[nodiscard]] bool exact() const noexcept { return request_.recall >= 1.0; }

    const CollectionCore& core_;
    const CollectionState& state_;
    const SearchRequest& request_;
    const CollectionOptions& options_;
    const bool higher_;
    Plan plan_;
};

// Ids and the wanted parts of documents.
void append_documents(const CollectionOptions& options, const CollectionState& state, std::span<const Slot> heads,
                      const Include& include, DocumentList& out);
// The vector of a slot; by the guard of the version it is in one of its parts.
void read_vector(const CollectionState& state, Slot slot, std::span<float> vector);

}  // namespace sage::vdb::detail
