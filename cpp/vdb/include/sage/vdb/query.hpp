// What a search is asked, and what it answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sage/vdb/document.hpp"
#include "sage/vdb/filter.hpp"

namespace sage::vdb {

// Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): of fetch_k candidates, one after the other the one
// with the greatest lambda * likeness to the query - (1 - lambda) * likeness to the most alike one chosen before.
// Likeness is the score under cosine and inner_product, 1 / (1 + squared distance) under l2.
struct Mmr {
    double lambda = 0.5;      // 0 to 1; 1 is the plain order
    std::size_t fetch_k = 0;  // 0: 4 k, at least 32
};

// The k best groups of documents that have the same value in a field, and the best `per_group` of each. Documents
// without a value are one group. The field must not hold lists.
struct GroupBy {
    std::string field;
    std::size_t per_group = 1;
};

// How the answers of vectors and of words become one. A document that one side does not name has no part from it.
struct Fusion {
    enum class Kind {
        reciprocal_rank,  // sum of 1 / (k0 + rank), ranks from 1 (Cormack, Clarke, Buettcher, SIGIR 2009)
        weighted,         // alpha * vectors + (1 - alpha) * words, each scaled to 0 .. 1 by its best and worst
    };
    Kind kind = Kind::reciprocal_rank;
    double k0 = 60;
    double alpha = 0.5;       // 0 to 1
    std::size_t fetch_k = 0;  // of each side; 0: 4 k, at least 64
};

enum class FilterPlan {
    automatic,
    before,    // evaluate the filter, score every document that matches
    in_index,  // evaluate it, and let the index pass over what does not match
    after,     // search without it, more than is asked, and drop what does not match
};
[[nodiscard]] const char* filter_plan_name(FilterPlan plan) noexcept;

struct SearchRequest {
    // Vectors, row after row; one query each. May be empty when there are texts: then words alone decide.
    std::span<const float> queries = {};
    // Words, one for each vector, or one for each query when there are no vectors.
    std::span<const std::string> texts = {};
    std::size_t k = 10;
    // How hard the index looks: candidates of a graph, lists of an inverted file. 0: what `recall` takes.
    std::size_t effort = 0;
    double recall = 0.95;  // wanted share of the true best, above 0 and at most 1; 1 looks at every vector
    std::optional<Filter> filter = std::nullopt;
    FilterPlan plan = FilterPlan::automatic;
    // Only what scores at least this (l2: at most), k of them. Not together with mmr, group_by and texts.
    std::optional<float> radius = std::nullopt;
    std::optional<Mmr> mmr = std::nullopt;
    std::optional<GroupBy> group_by = std::nullopt;
    Fusion fusion = {};
    Include include = {};
    std::size_t threads = 0;  // for several queries; 0: all cores
};

// Answers to all queries of a request: the hits of query i are those from offsets[i] to offsets[i + 1] - 1, best first.
// A document occurs once per query, with the score of its best vector. Equal scores are ordered by where the documents
// lie. The scores are those of the metric; of texts alone BM25's; of both the fused ones, higher is better.
struct SearchHits {
    std::vector<std::size_t> offsets = {0};
    std::vector<float> scores;
    DocumentList documents;  // the ids always, other parts as included

    [[nodiscard]] std::size_t query_count() const { return offsets.size() - 1; }
};

// What a search with this request does, and why.
struct Explanation {
    std::string index;         // which answer: "flat", "graph", ...
    std::string index_reason;  // a sentence
    std::size_t indexed = 0;   // vectors in that index
    std::size_t recent = 0;    // written lately, looked at one by one until they are indexed
    std::size_t effort = 0;
    FilterPlan plan = FilterPlan::automatic;  // automatic: there is no filter
    std::string plan_reason;
    double selectivity = 1;    // expected share of the documents that match
    std::size_t matches_min = 0;
    std::size_t matches_max = 0;

    // All of it as text.
    [[nodiscard]] std::string to_string() const;
};

}  // namespace sage::vdb
