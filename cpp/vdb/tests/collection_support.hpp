// What the tests of collections share.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "sage/common/error.hpp"
#include "sage/vdb/database.hpp"

namespace sage::vdb::testing {

using Numbers = std::vector<std::int64_t>;
using Texts = std::vector<std::string>;

inline IdSpan span_of(const Numbers& ids) { return std::span<const std::int64_t>(ids); }
inline IdSpan span_of(const Texts& ids) { return std::span<const std::string>(ids); }

inline std::vector<float> random_rows(std::mt19937& random, std::size_t rows, std::size_t dimension) {
    std::normal_distribution<float> normal;
    std::vector<float> values(rows * dimension);
    for (float& value : values) {
        value = normal(random);
    }
    return values;
}

inline CollectionOptions options_of(std::size_t dimension, Metric metric, IndexKind index = IndexKind::automatic) {
    CollectionOptions options;
    options.dimension = dimension;
    options.metric = metric;
    options.index = index;
    return options;
}

inline DatabaseOptions quiet() {
    DatabaseOptions options;
    options.background = false;
    return options;
}

inline void add_rows(const Collection& collection, const Numbers& ids, const std::vector<float>& rows) {
    Collection(collection).add({.ids = span_of(ids), .vectors = rows});
}

inline Numbers numbers_of(const SearchHits& hits, std::size_t query = 0) {
    const auto& all = std::get<Numbers>(hits.documents.ids);
    return {all.begin() + static_cast<std::ptrdiff_t>(hits.offsets[query]),
            all.begin() + static_cast<std::ptrdiff_t>(hits.offsets[query + 1])};
}

// Runs `call`, which must throw `Failure` with a message that holds `part`.
template <class Failure>
void expect_failure(const std::function<void()>& call, const std::string& part) {
    try {
        call();
        ADD_FAILURE() << "accepted, expected: " << part;
    } catch (const Failure& error) {
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
}

class TemporaryFolder {
public:
    TemporaryFolder() {
        std::string name = (std::filesystem::temp_directory_path() / "sage-vdb-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) {
            throw std::runtime_error("no temporary folder");
        }
        path_ = name;
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() { std::filesystem::remove_all(path_); }
    [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }

private:
    std::filesystem::path path_;
};

// The reference: a plain map, and brute force.
struct Plain {
    std::vector<std::vector<float>> vectors;
    std::map<std::string, Value> metadata;
    std::optional<std::string> text;
};

inline double score_of(Metric metric, std::span<const float> a, std::span<const float> b) {
    double product = 0;
    double squares_a = 0;
    double squares_b = 0;
    double difference = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        product += double{a[i]} * double{b[i]};
        squares_a += double{a[i]} * double{a[i]};
        squares_b += double{b[i]} * double{b[i]};
        difference += (double{a[i]} - double{b[i]}) * (double{a[i]} - double{b[i]});
    }
    switch (metric) {
        case Metric::l2: return difference;
        case Metric::inner_product: return product;
        case Metric::cosine: break;
    }
    return squares_a == 0 || squares_b == 0 ? 0 : product / std::sqrt(squares_a * squares_b);
}

inline double best_score(Metric metric, std::span<const float> query, const Plain& document) {
    double best = 0;
    for (std::size_t i = 0; i < document.vectors.size(); ++i) {
        const double score = score_of(metric, query, document.vectors[i]);
        best = i == 0 || (metric == Metric::l2 ? score < best : score > best) ? score : best;
    }
    return best;
}

}  // namespace sage::vdb::testing
