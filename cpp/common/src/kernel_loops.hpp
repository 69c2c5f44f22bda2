// The loops of all kernels, written once over a register type. Internal.
//
// Everything here sits in an unnamed namespace on purpose, header or not: each translation unit must keep its
// own copy, compiled for its own instruction set. With external linkage the linker would keep one copy for
// everybody, and a machine without AVX-512 might be given the AVX-512 one. For the same reason nothing of the
// standard library's templates is used here. A test looks at the symbols.
//
// A register type V offers: Reg, width, zero(), load(p), load_first(p, count) with zeros behind,
// add_product(sum, a, b), add_squared_difference(sum, a, b), add(a, b), reduce(a), square_root(x).
// Zeros behind the last element add nothing to any of the three sums.
#pragma once

#include <cstddef>

#include "kernel_tables.hpp"

namespace sage::distance {
namespace {

// Rows that share one pass over the query: enough independent sums to keep the multipliers busy.
constexpr std::size_t rows_at_once = 4;

template <class V>
struct ProductStep {
    static void add(typename V::Reg& sum, typename V::Reg a, typename V::Reg b) { sum = V::add_product(sum, a, b); }
};

template <class V>
struct SquaredDifferenceStep {
    static void add(typename V::Reg& sum, typename V::Reg a, typename V::Reg b) {
        sum = V::add_squared_difference(sum, a, b);
    }
};

// `Count` rows, `dimension` apart, against one query. The order of summation does not depend on Count.
template <class V, template <class> class Step, std::size_t Count>
void sum_rows(const float* query, const float* rows, std::size_t dimension, float* sums) {
    typename V::Reg even[Count];
    typename V::Reg odd[Count];
    for (std::size_t row = 0; row < Count; ++row) {
        even[row] = V::zero();
        odd[row] = V::zero();
    }
    std::size_t at = 0;
    for (; at + 2 * V::width <= dimension; at += 2 * V::width) {
        const typename V::Reg first = V::load(query + at);
        const typename V::Reg second = V::load(query + at + V::width);
        for (std::size_t row = 0; row < Count; ++row) {
            const float* values = rows + row * dimension + at;
            Step<V>::add(even[row], first, V::load(values));
            Step<V>::add(odd[row], second, V::load(values + V::width));
        }
    }
    if (at + V::width <= dimension) {
        const typename V::Reg first = V::load(query + at);
        for (std::size_t row = 0; row < Count; ++row) {
            Step<V>::add(even[row], first, V::load(rows + row * dimension + at));
        }
        at += V::width;
    }
    if (at < dimension) {
        const std::size_t left = dimension - at;
        const typename V::Reg first = V::load_first(query + at, left);
        for (std::size_t row = 0; row < Count; ++row) {
            Step<V>::add(odd[row], first, V::load_first(rows + row * dimension + at, left));
        }
    }
    for (std::size_t row = 0; row < Count; ++row) {
        sums[row] = V::reduce(V::add(even[row], odd[row]));
    }
}

template <class V, template <class> class Step>
float pair(const float* a, const float* b, std::size_t dimension) {
    float sum;
    sum_rows<V, Step, 1>(a, b, dimension, &sum);
    return sum;
}

template <class V, template <class> class Step>
void block(const float* query, const float* rows, std::size_t row_count, std::size_t dimension, float* scores) {
    std::size_t row = 0;
    for (; row + rows_at_once <= row_count; row += rows_at_once) {
        sum_rows<V, Step, rows_at_once>(query, rows + row * dimension, dimension, scores + row);
    }
    for (; row < row_count; ++row) {
        sum_rows<V, Step, 1>(query, rows + row * dimension, dimension, scores + row);
    }
}

// The inner product of one row with the query, divided by both lengths, in one pass over the row.
template <class V>
float cosine_of_row(const float* query, float query_length, const float* row, std::size_t dimension) {
    typename V::Reg product = V::zero();
    typename V::Reg square = V::zero();
    std::size_t at = 0;
    for (; at + V::width <= dimension; at += V::width) {
        const typename V::Reg values = V::load(row + at);
        product = V::add_product(product, V::load(query + at), values);
        square = V::add_product(square, values, values);
    }
    if (at < dimension) {
        const std::size_t left = dimension - at;
        const typename V::Reg values = V::load_first(row + at, left);
        product = V::add_product(product, V::load_first(query + at, left), values);
        square = V::add_product(square, values, values);
    }
    const float row_length = V::square_root(V::reduce(square));
    if (query_length == 0.0F || row_length == 0.0F) {
        // NaN on the other side still has to come out as NaN, so this is not the constant 0.
        const float other = query_length + row_length;
        return other == other ? 0.0F : other;
    }
    // Two divisions: the product of the lengths may overflow where neither length does.
    return V::reduce(product) / query_length / row_length;
}

template <class V>
void cosine_block(const float* query, const float* rows, std::size_t row_count, std::size_t dimension,
                  float* scores) {
    const float query_length = V::square_root(pair<V, ProductStep>(query, query, dimension));
    for (std::size_t row = 0; row < row_count; ++row) {
        scores[row] = cosine_of_row<V>(query, query_length, rows + row * dimension, dimension);
    }
}

template <class V>
float cosine_pair(const float* a, const float* b, std::size_t dimension) {
    float score;
    cosine_block<V>(a, b, 1, dimension, &score);
    return score;
}

template <class V>
constexpr Kernels make_kernels() {
    return Kernels{
        .l2_squared = &pair<V, SquaredDifferenceStep>,
        .inner_product = &pair<V, ProductStep>,
        .cosine = &cosine_pair<V>,
        .l2_squared_rows = &block<V, SquaredDifferenceStep>,
        .inner_product_rows = &block<V, ProductStep>,
        .cosine_rows = &cosine_block<V>,
    };
}

}  // namespace
}  // namespace sage::distance
