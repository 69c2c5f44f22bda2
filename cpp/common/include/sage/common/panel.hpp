// Products of many queries with many rows, and of one query with rows of single bits.
//
// A panel holds panel_rows rows across: value i of row r is panel[i * panel_rows + r]. Made once, it serves all queries
// of a batch, as the packed operand of a matrix product does (Goto & van de Geijn, "Anatomy of High-Performance
// Matrix Multiplication", TOMS 2008).
//
// Rules that hold at every SIMD level:
// - Each product is one sum in ascending order of the dimension: its error is below (dimension + 1) * 2^-24 * |q| *
//   |r|. It does not depend on what else is in the panel or the batch.
// - NaN in, NaN out. bit_product_rows is exact and the same at every level.
#pragma once

#include <cstddef>
#include <cstdint>

#include "sage/common/cpu.hpp"

namespace sage::distance {

inline constexpr std::size_t panel_rows = 64;

struct PanelKernels {
    // Rows of `dimension` values, each times its scale (absent: 1); rows from `count` on become zeros.
    using Pack = void (*)(const float* const* rows, const float* scales, std::size_t count, std::size_t dimension,
                          float* panel);
    // products[q * panel_rows + r] for queries that lie `query_count` rows of `dimension` values after one another.
    using Products = void (*)(const float* panel, std::size_t dimension, const float* queries,
                              std::size_t query_count, float* products);
    // costs[r] = addends[r] + factor * products[r] of one query; bit r of the result says that costs[r] <= limit.
    using Select = std::uint64_t (*)(const float* products, const float* addends, float factor, float limit,
                                     float* costs);
    // The sum of the query's values whose bit is set: bit i % 8 of byte i / 8. Rows have whole words of 64 bits, and
    // the query as many values, zeros behind its last one.
    using BitRows = void (*)(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t row_count,
                             std::size_t words, std::int32_t* products);
    using StreamRows = void (*)(const float* query, const float* const* rows, std::size_t row_count,
                                std::size_t dimension, float* scores);

    Pack pack;
    Products products;
    Select select;
    BitRows bit_product_rows;
    // One query with rows that are read from memory, several side by side; for each row bit for bit what a call with
    // that row alone gives.
    StreamRows product_rows;
    StreamRows l2_squared_rows;
};

// The kernels of this process: those of simd::active_level().
[[nodiscard]] const PanelKernels& panel_kernels();
// The kernels of one level, to compare them. Throws InvalidArgument when the level is not available.
[[nodiscard]] const PanelKernels& panel_kernels(simd::Level level);

}  // namespace sage::distance
