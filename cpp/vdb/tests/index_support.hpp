// What the tests of the indexes over slots share.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "sage/vdb/index.hpp"
#include "support.hpp"

namespace sage::vdb::testing {

constexpr std::size_t index_dimension = 24;

// Vectors around a few centres, so that lists and graphs have something to find.
inline std::vector<float> clustered_values(std::mt19937& random, std::size_t count,
                                           std::size_t dimension = index_dimension) {
    std::mt19937 fixed(99);
    const auto centres = random_values(fixed, 12 * dimension);
    auto values = random_values(random, count * dimension);
    for (std::size_t row = 0; row < count; ++row) {
        const std::size_t centre = random() % 12;
        for (std::size_t i = 0; i < dimension; ++i) {
            values[row * dimension + i] = 0.6F * values[row * dimension + i] + centres[centre * dimension + i];
        }
    }
    return values;
}

inline std::vector<Slot> consecutive_slots(std::size_t count, Slot first = 0) {
    std::vector<Slot> slots(count);
    std::iota(slots.begin(), slots.end(), first);
    return slots;
}

// The reference: the score as its definition says, in double.
inline double true_score(Metric metric, const float* a, const float* b, std::size_t dimension = index_dimension) {
    double product = 0.0;
    double squares_a = 0.0;
    double squares_b = 0.0;
    double distance = 0.0;
    for (std::size_t i = 0; i < dimension; ++i) {
        const auto x = static_cast<double>(a[i]);
        const auto y = static_cast<double>(b[i]);
        product += x * y;
        squares_a += x * x;
        squares_b += y * y;
        distance += (x - y) * (x - y);
    }
    if (metric == Metric::l2) {
        return distance;
    }
    if (metric == Metric::inner_product) {
        return product;
    }
    const double lengths = std::sqrt(squares_a) * std::sqrt(squares_b);
    return lengths > 0.0 ? product / lengths : 0.0;
}

// What should be in an index: slot by slot, empty where there is none.
using Model = std::vector<std::vector<float>>;

inline std::vector<Slot> true_neighbours(const Model& model, Metric metric, const float* query, std::size_t k,
                                         const Allowed* allowed = nullptr) {
    std::vector<std::pair<double, Slot>> scored;
    for (std::size_t slot = 0; slot < model.size(); ++slot) {
        const bool open = allowed == nullptr ||
                          (slot / 64 < allowed->size() && ((*allowed)[slot / 64] >> (slot % 64) & 1U) != 0);
        if (open && !model[slot].empty()) {
            const double score = true_score(metric, query, model[slot].data());
            scored.emplace_back(higher_is_better(metric) ? -score : score, static_cast<Slot>(slot));
        }
    }
    std::sort(scored.begin(), scored.end());
    std::vector<Slot> slots;
    for (std::size_t i = 0; i < std::min(k, scored.size()); ++i) {
        slots.push_back(scored[i].second);
    }
    return slots;
}

inline double recall_of(const Index& index, const Model& model, std::span<const float> queries, std::size_t k,
                        std::size_t effort, const Allowed* allowed = nullptr) {
    std::size_t found = 0;
    std::size_t wanted = 0;
    for (std::size_t q = 0; q < queries.size() / index_dimension; ++q) {
        const auto query = queries.subspan(q * index_dimension, index_dimension);
        const auto truth = true_neighbours(model, index.metric(), query.data(), k, allowed);
        const Hits hits =
            allowed == nullptr ? index.search(query, k, effort) : index.search(query, k, effort, *allowed);
        const std::set<Slot> seen(hits.slots.begin(), hits.slots.end());
        EXPECT_EQ(seen.size(), hits.slots.size()) << "a slot came twice";
        wanted += truth.size();
        found += static_cast<std::size_t>(
            std::count_if(truth.begin(), truth.end(), [&](Slot slot) { return seen.contains(slot); }));
    }
    return static_cast<double>(found) / static_cast<double>(wanted);
}

inline std::vector<std::uint64_t> allow_every(std::size_t count, std::size_t step) {
    std::vector<std::uint64_t> words((count + 63) / 64, 0);
    for (std::size_t slot = 0; slot < count; slot += step) {
        words[slot / 64] |= std::uint64_t{1} << (slot % 64);
    }
    return words;
}

}  // namespace sage::vdb::testing
