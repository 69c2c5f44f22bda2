// A database and a plain map under the same random operations, and a thorough look whether they are the same.
#pragma once

#include <algorithm>
#include <cmath>
#include <set>

#include "collection_support.hpp"

namespace sage::vdb::testing {

using PlainCollection = std::map<std::int64_t, Plain>;

inline const char* some_word(std::mt19937& random) {
    static constexpr const char* words[] = {"graph", "vector", "index", "log", "page", "disk", "tree", "node"};
    return words[random() % 8];
}

struct Batch {
    Numbers ids;
    std::vector<float> vectors;
    std::vector<std::uint32_t> counts;
    std::vector<Record> metadata;
    std::vector<std::optional<std::string>> texts;

    [[nodiscard]] Documents view() const {
        return {.ids = span_of(ids), .vectors = vectors, .vector_counts = counts, .metadata = metadata, .texts = texts};
    }
    void enter(PlainCollection& plain, std::size_t dimension) const {
        std::size_t row = 0;
        for (std::size_t i = 0; i < ids.size(); ++i) {
            Plain document;
            for (std::uint32_t j = 0; j < counts[i]; ++j, ++row) {
                const auto first = vectors.begin() + static_cast<std::ptrdiff_t>(row * dimension);
                document.vectors.emplace_back(first, first + static_cast<std::ptrdiff_t>(dimension));
            }
            document.metadata.insert(metadata[i].begin(), metadata[i].end());
            document.text = texts[i];
            plain[ids[i]] = std::move(document);
        }
    }
};

inline Batch random_batch(std::mt19937& random, std::size_t size, std::int64_t id_end, std::size_t dimension) {
    Batch batch;
    std::set<std::int64_t> ids;
    while (ids.size() < size) {
        ids.insert(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(id_end)));
    }
    batch.ids.assign(ids.begin(), ids.end());
    std::shuffle(batch.ids.begin(), batch.ids.end(), random);
    for (std::size_t i = 0; i < size; ++i) {
        batch.counts.push_back(random() % 8 == 0 ? 1 + static_cast<std::uint32_t>(random() % 3) : 1);
        Record record;
        if (random() % 4 != 0) {
            record.emplace_back("number", static_cast<std::int64_t>(random() % 20));
        }
        if (random() % 3 == 0) {
            record.emplace_back("word", std::string(some_word(random)));
        }
        batch.metadata.push_back(record);
        batch.texts.push_back(random() % 2 == 0 ? std::nullopt
                                                : std::optional(std::string(some_word(random)) + " " + some_word(random)));
    }
    std::size_t rows = 0;
    for (const std::uint32_t count : batch.counts) {
        rows += count;
    }
    batch.vectors = random_rows(random, rows, dimension);
    return batch;
}

// One random change of both. The plain one is changed first when `before` says so.
class RandomChange {
public:
    RandomChange(std::mt19937& random, const PlainCollection& plain, std::int64_t id_end, std::size_t dimension)
        : dimension_(dimension), kind_(random() % 8), batch_(random_batch(random, 1 + random() % 12, id_end, dimension)) {
        if (kind_ == 7) {
            std::erase_if(batch_.ids, [&plain](std::int64_t id) { return !plain.contains(id); });
            batch_.counts.clear();
            batch_.vectors.clear();
            batch_.metadata.resize(batch_.ids.size());
            batch_.texts.resize(batch_.ids.size());
        }
    }

    void apply(Collection& collection) const {
        if (kind_ < 5) {
            collection.upsert(batch_.view());
        } else if (kind_ < 7) {
            collection.remove(span_of(batch_.ids));
        } else {
            collection.update(batch_.view());
        }
    }
    void apply(PlainCollection& plain) const {
        if (kind_ < 5) {
            batch_.enter(plain, dimension_);
        } else if (kind_ < 7) {
            for (const std::int64_t id : batch_.ids) {
                plain.erase(id);
            }
        } else {
            for (std::size_t i = 0; i < batch_.ids.size(); ++i) {
                Plain& document = plain[batch_.ids[i]];
                for (const auto& [name, value] : batch_.metadata[i]) {
                    document.metadata[name] = value;
                }
                document.text = batch_.texts[i] ? batch_.texts[i] : document.text;
            }
        }
    }

private:
    std::size_t dimension_;
    std::size_t kind_;
    Batch batch_;
};

inline bool same_contents(const Collection& collection, const PlainCollection& plain) {
    if (collection.count() != plain.size()) {
        return false;
    }
    const DocumentList all = collection.scroll({.limit = Collection::k_max, .include = {true, true, true}});
    const std::size_t dimension = collection.options().dimension;
    std::size_t row = 0;
    std::size_t i = 0;
    for (const auto& [id, document] : plain) {
        const std::map<std::string, Value> metadata(all.metadata[i].begin(), all.metadata[i].end());
        if (std::get<Numbers>(all.ids)[i] != id || all.vector_counts[i] != document.vectors.size() ||
            metadata != document.metadata || all.texts[i] != document.text) {
            return false;
        }
        for (const auto& vector : document.vectors) {
            for (std::size_t at = 0; at < dimension; ++at) {
                if (std::fabs(all.vectors[row * dimension + at] - vector[at]) > 2e-6F * (1.0F + std::fabs(vector[at]))) {
                    return false;
                }
            }
            ++row;
        }
        ++i;
    }
    return true;
}

// The scores of the best `k` documents that fulfil `wanted`, best first.
template <class Wanted>
std::vector<double> best_scores(const PlainCollection& plain, Metric metric, std::span<const float> query, std::size_t k,
                                Wanted wanted) {
    std::vector<double> scores;
    for (const auto& [id, document] : plain) {
        if (wanted(document)) {
            scores.push_back(best_score(metric, query, document));
        }
    }
    std::sort(scores.begin(), scores.end());
    if (metric != Metric::l2) {
        std::reverse(scores.begin(), scores.end());
    }
    scores.resize(std::min(k, scores.size()));
    return scores;
}

inline void expect_scores(const SearchHits& hits, const std::vector<double>& expected, const char* what) {
    ASSERT_EQ(hits.scores.size(), expected.size()) << what;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(hits.scores[i], expected[i], 1e-4 * (1.0 + std::fabs(expected[i]))) << what << ", hit " << i;
    }
}

}  // namespace sage::vdb::testing
