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

}  // namespace
}  // namespace sage::distance
