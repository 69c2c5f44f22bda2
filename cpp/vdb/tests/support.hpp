// What the tests of the vector index share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "sage/common/error.hpp"
#include "sage/vdb/flat_index.hpp"

namespace sage::vdb::testing {

// Runs `call`, which must throw InvalidArgument with exactly this message.
inline void expect_refused(const std::function<void()>& call, const std::string& message) {
    try {
        call();
        ADD_FAILURE() << "accepted, expected: " << message;
    } catch (const InvalidArgument& error) {
        EXPECT_EQ(error.what(), message);
    }
}

inline std::vector<float> random_values(std::mt19937& random, std::size_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    std::generate(values.begin(), values.end(), [&] { return normal(random); });
    return values;
}

// first, first + 1, ...
inline std::vector<Id> consecutive_ids(std::size_t count, Id first = 0) {
    std::vector<Id> ids(count);
    std::iota(ids.begin(), ids.end(), first);
    return ids;
}

inline std::vector<float> vector_of(const FlatIndex& index, Id id) {
    std::vector<float> vector(index.dimension());
    index.get(id, vector);
    return vector;
}

}  // namespace sage::vdb::testing
