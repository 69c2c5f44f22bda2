// From vectors to the space that the graph lives in, and to 8-bit codes there. Internal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "sage/common/aligned.hpp"
#include "sage/common/codes.hpp"
#include "sage/common/distance.hpp"
#include "sage/vdb/metric.hpp"

namespace sage::vdb {

// The graph knows one metric, the squared Euclidean distance of codes. Cosine becomes it through vectors of length 1;
// the inner product through one more coordinate, sqrt(longest^2 - length^2), that gives all vectors the same length
// and is 0 in queries (Bachrach et al., RecSys 2014).
//
// A vector, extended so, minus the mean, is projected (or not) and each coordinate rounded to a multiple of `step`:
// code = 128 + value / step, from 1 to 255.
struct Transform {
    std::size_t dimension = 0;       // of the vectors
    std::size_t wide_dimension = 0;  // with the additional coordinate, if any
    std::size_t code_dimension = 0;
    std::size_t stride = 0;          // bytes of a row of codes: a multiple of 64, padded with 128
    float step = 1.0F;
    float longest = 0.0F;            // inner product only
    float energy = 1.0F;
    std::vector<float> mean;         // wide_dimension
    std::vector<float> basis;        // code_dimension rows of wide_dimension, orthonormal; empty: none

    // Derived by finish(): the basis as bytes, for queries.
    AlignedVector<std::uint8_t> basis_bytes;
    std::vector<const std::uint8_t*> basis_rows;
    std::vector<float> basis_steps;

    [[nodiscard]] bool projects() const noexcept { return !basis.empty(); }
    void finish();
};

// A query in code space: value = step * bytes[i], and what its sum does to products with codes offset by 128.
struct CodeQuery {
    AlignedVector<std::int8_t> bytes;
    float step = 0.0F;
    std::int32_t offset = 0;  // 128 * sum of bytes
};

// Buffers of a thread that codes vectors.
struct TransformBuffers {
    AlignedVector<float> wide;
    AlignedVector<float> coordinates;
    AlignedVector<std::int8_t> bytes;
    std::vector<std::int32_t> products;
};

// Learns from `vectors` (row after row; under cosine of length 1). `code_dimension` 0 chooses.
[[nodiscard]] Transform train(std::span<const float> vectors, std::size_t dimension, Metric metric,
                              std::size_t code_dimension, std::size_t threads);

// Writes `stride` bytes; returns the squared length of what they stand for.
float encode(const Transform& transform, Metric metric, const float* vector, std::uint8_t* code,
             TransformBuffers& buffers);

void encode_query(const Transform& transform, Metric metric, const float* query, CodeQuery& out,
                  TransformBuffers& buffers);

}  // namespace sage::vdb
