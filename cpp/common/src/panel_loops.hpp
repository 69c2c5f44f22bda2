// The loops of the panel kernels, written once over a register type. Internal.
//
// Everything sits in an unnamed namespace and uses no templates of the standard library, for the reason that
// kernel_loops.hpp gives.
#pragma once

#include <cstddef>
#include <cstdint>

#include "panel_tables.hpp"

namespace sage::distance {
namespace {

void pack_panel(const float* const* rows, const float* scales, std::size_t count, std::size_t dimension,
                float* panel) {
    // Sixteen values of each row at a time: their cache lines stay while the panel is written in order.
    for (std::size_t first = 0; first < dimension; first += 16) {
        const std::size_t end = first + 16 < dimension ? first + 16 : dimension;
        for (std::size_t i = first; i < end; ++i) {
            float* to = panel + i * panel_rows;
            for (std::size_t row = 0; row < count; ++row) {
                to[row] = scales == nullptr ? rows[row][i] : rows[row][i] * scales[row];
            }
            for (std::size_t row = count; row < panel_rows; ++row) {
                to[row] = 0.0F;
            }
        }
    }
}

// V offers Reg, width, zero, load, store, broadcast and add_product. Registers tiles of `Wide` registers of rows by
// `Queries` queries: loads are few beside the multiplications.
template <class V, std::size_t Wide, std::size_t Queries>
void multiply_tile(const float* panel, std::size_t dimension, const float* queries, float* products) {
    typename V::Reg sums[Queries][Wide];
    for (std::size_t q = 0; q < Queries; ++q) {
        for (std::size_t w = 0; w < Wide; ++w) {
            sums[q][w] = V::zero();
        }
    }
    for (std::size_t i = 0; i < dimension; ++i) {
        typename V::Reg rows[Wide];
        for (std::size_t w = 0; w < Wide; ++w) {
            rows[w] = V::load(panel + i * panel_rows + w * V::width);
        }
        for (std::size_t q = 0; q < Queries; ++q) {
            const typename V::Reg value = V::broadcast(queries[q * dimension + i]);
            for (std::size_t w = 0; w < Wide; ++w) {
                sums[q][w] = V::add_product(sums[q][w], rows[w], value);
            }
        }
    }
    for (std::size_t q = 0; q < Queries; ++q) {
        for (std::size_t w = 0; w < Wide; ++w) {
            V::store(products + q * panel_rows + w * V::width, sums[q][w]);
        }
    }
}

template <class V, std::size_t Wide, std::size_t Queries>
void multiply(const float* panel, std::size_t dimension, const float* queries, std::size_t query_count,
              float* products) {
    std::size_t q = 0;
    for (; q + Queries <= query_count; q += Queries) {
        for (std::size_t first = 0; first < panel_rows; first += Wide * V::width) {
            multiply_tile<V, Wide, Queries>(panel + first, dimension, queries + q * dimension,
                                            products + q * panel_rows + first);
        }
    }
    for (; q < query_count; ++q) {
        for (std::size_t first = 0; first < panel_rows; first += Wide * V::width) {
            multiply_tile<V, Wide, 1>(panel + first, dimension, queries + q * dimension,
                                      products + q * panel_rows + first);
        }
    }
}

struct RowProduct {
    template <class V>
    static typename V::Reg add(typename V::Reg sum, typename V::Reg a, typename V::Reg b) {
        return V::add_product(sum, a, b);
    }
};
struct RowSquaredDifference {
    template <class V>
    static typename V::Reg add(typename V::Reg sum, typename V::Reg a, typename V::Reg b) {
        const typename V::Reg difference = V::subtract(a, b);
        return V::add_product(sum, difference, difference);
    }
};

// Several rows side by side: as many streams from memory, and each part of the query is loaded once. Two sums per row,
// whatever the number of rows.
template <class V, class Step, std::size_t Rows>
void stream_some(const float* query, const float* const* rows, std::size_t dimension, float* scores) {
    constexpr std::size_t ahead = 128;  // floats
    typename V::Reg sums[Rows][2];
    for (std::size_t row = 0; row < Rows; ++row) {
        sums[row][0] = V::zero();
        sums[row][1] = V::zero();
    }
    std::size_t at = 0;
    for (; at + 2 * V::width <= dimension; at += 2 * V::width) {
        const typename V::Reg first = V::load(query + at);
        const typename V::Reg second = V::load(query + at + V::width);
        for (std::size_t row = 0; row < Rows; ++row) {
            const float* values = rows[row] + at;
            // Addresses behind the end do no harm.
            __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(values) +
                                                             ahead * sizeof(float)));
            if constexpr (V::width == 16) {
                __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(values) +
                                                                 (ahead + 16) * sizeof(float)));
            }
            sums[row][0] = Step::template add<V>(sums[row][0], first, V::load(values));
            sums[row][1] = Step::template add<V>(sums[row][1], second, V::load(values + V::width));
        }
    }
    for (std::size_t side = 0; at < dimension; at += V::width, ++side) {
        const std::size_t left = dimension - at < V::width ? dimension - at : V::width;
        const typename V::Reg values = V::load_first(query + at, left);
        for (std::size_t row = 0; row < Rows; ++row) {
            sums[row][side] = Step::template add<V>(sums[row][side], values, V::load_first(rows[row] + at, left));
        }
    }
    for (std::size_t row = 0; row < Rows; ++row) {
        scores[row] = V::reduce(V::add(sums[row][0], sums[row][1]));
    }
}

template <class V, class Step>
void stream_rows(const float* query, const float* const* rows, std::size_t row_count, std::size_t dimension,
                 float* scores) {
    std::size_t row = 0;
    for (; row + 4 <= row_count; row += 4) {
        stream_some<V, Step, 4>(query, rows + row, dimension, scores + row);
    }
    for (; row < row_count; ++row) {
        stream_some<V, Step, 1>(query, rows + row, dimension, scores + row);
    }
}

}  // namespace
}  // namespace sage::distance
