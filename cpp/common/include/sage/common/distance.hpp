// Distances between float32 vectors.
//
// Rules that hold at every SIMD level:
// - A dimension of 0 gives 0. Pointers need the alignment of float and no more.
// - The cosine of a zero vector with anything is 0: it has no direction, so it is neither like nor unlike.
//   cosine is not clamped and may leave [-1, 1] by rounding.
// - NaN in, NaN out. Infinities and overflow follow IEEE 754.
// - The *_rows forms give for each row bit for bit what the pair form of the same level gives.
// - Two levels sum in different orders, so their results agree up to rounding only.
#pragma once

#include <cstddef>
#include <span>

#include "sage/common/cpu.hpp"

namespace sage::distance {

// The kernels of one SIMD level. No checks: the callers below and the indexes have made them.
struct Kernels {
    using Pair = float (*)(const float* a, const float* b, std::size_t dimension);
    // One query against `row_count` contiguous rows; writes `row_count` scores.
    using Rows = void (*)(const float* query, const float* rows, std::size_t row_count, std::size_t dimension,
                          float* scores);

    Pair l2_squared;
    Pair inner_product;
    Pair cosine;
    Rows l2_squared_rows;
    Rows inner_product_rows;
    Rows cosine_rows;
};

// The kernels of this process: those of simd::active_level().
[[nodiscard]] const Kernels& kernels();

// The kernels of one level, to compare them. Throws InvalidArgument when the level is not available.
[[nodiscard]] const Kernels& kernels(simd::Level level);

// The sum of squared differences. Throws InvalidArgument when the sizes differ, like all of these.
[[nodiscard]] float l2_squared(std::span<const float> a, std::span<const float> b);
[[nodiscard]] float inner_product(std::span<const float> a, std::span<const float> b);
// The inner product divided by both lengths.
[[nodiscard]] float cosine(std::span<const float> a, std::span<const float> b);

// One query against a block of rows, row after row: rows.size() must be query.size() * scores.size().
void l2_squared_rows(std::span<const float> query, std::span<const float> rows, std::span<float> scores);
void inner_product_rows(std::span<const float> query, std::span<const float> rows, std::span<float> scores);
void cosine_rows(std::span<const float> query, std::span<const float> rows, std::span<float> scores);

}  // namespace sage::distance
