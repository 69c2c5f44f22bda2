// The loops of the kernels over codes, written once over a register type. Internal.
//
// Everything sits in an unnamed namespace, and nothing of the standard library's templates is used, for the reason
// that kernel_loops.hpp gives.
//
// A register type V offers, for floats: Reg, width, zero(), add(a, b), add_product, add_squared_difference, reduce and
// load / load_first of float, and load_bfloat16, load_float16 with their *_first forms; store(to, reg) and
// narrow_bfloat16 / narrow_float16 of `width` values. Zeros behind the last element add nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "code_tables.hpp"

namespace sage::distance {
namespace {

constexpr std::size_t nibble_block = 128;
constexpr std::size_t nibble_half = nibble_block / 2;

// How the elements of a row reach a register.
template <class V>
struct FloatRow {
    using Element = float;
    static typename V::Reg load(const float* from) { return V::load(from); }
    static typename V::Reg load_first(const float* from, std::size_t count) { return V::load_first(from, count); }
};
template <class V>
struct Bfloat16Row {
    using Element = std::uint16_t;
    static typename V::Reg load(const Element* from) { return V::load_bfloat16(from); }
    static typename V::Reg load_first(const Element* from, std::size_t count) {
        Element padded[V::width] = {};
        for (std::size_t i = 0; i < count; ++i) {
            padded[i] = from[i];
        }
        return V::load_bfloat16(padded);
    }
};
template <class V>
struct Float16Row {
    using Element = std::uint16_t;
    static typename V::Reg load(const Element* from) { return V::load_float16(from); }
    static typename V::Reg load_first(const Element* from, std::size_t count) {
        Element padded[V::width] = {};
        for (std::size_t i = 0; i < count; ++i) {
            padded[i] = from[i];
        }
        return V::load_float16(padded);
    }
};

template <class V>
struct Product {
    static void add(typename V::Reg& sum, typename V::Reg a, typename V::Reg b) { sum = V::add_product(sum, a, b); }
};
template <class V>
struct SquaredDifference {
    static void add(typename V::Reg& sum, typename V::Reg a, typename V::Reg b) {
        sum = V::add_squared_difference(sum, a, b);
    }
};

template <class V, class Row, class Step>
float score_row(const float* query, const typename Row::Element* row, std::size_t dimension) {
    typename V::Reg sums[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    std::size_t at = 0;
    for (; at + 4 * V::width <= dimension; at += 4 * V::width) {
        for (std::size_t i = 0; i < 4; ++i) {
            Step::add(sums[i], V::load(query + at + i * V::width), Row::load(row + at + i * V::width));
        }
    }
    for (; at + V::width <= dimension; at += V::width) {
        Step::add(sums[0], V::load(query + at), Row::load(row + at));
    }
    if (at < dimension) {
        const std::size_t left = dimension - at;
        Step::add(sums[1], V::load_first(query + at, left), Row::load_first(row + at, left));
    }
    return V::reduce(V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3])));
}

template <class V, class Row, class Step>
void score_rows(const float* query, const typename Row::Element* const* rows, std::size_t row_count,
                std::size_t dimension, float* scores) {
    for (std::size_t row = 0; row < row_count; ++row) {
        scores[row] = score_row<V, Row, Step>(query, rows[row], dimension);
    }
}

template <class V>
void to_bfloat16(const float* values, std::size_t count, std::uint16_t* narrowed) {
    std::size_t at = 0;
    for (; at + V::width <= count; at += V::width) {
        V::narrow_bfloat16(V::load(values + at), narrowed + at);
    }
    if (at < count) {
        std::uint16_t last[V::width];
        V::narrow_bfloat16(V::load_first(values + at, count - at), last);
        for (std::size_t i = at; i < count; ++i) {
            narrowed[i] = last[i - at];
        }
    }
}

template <class V>
void to_float16(const float* values, std::size_t count, std::uint16_t* narrowed) {
    std::size_t at = 0;
    for (; at + V::width <= count; at += V::width) {
        V::narrow_float16(V::load(values + at), narrowed + at);
    }
    if (at < count) {
        std::uint16_t last[V::width];
        V::narrow_float16(V::load_first(values + at, count - at), last);
        for (std::size_t i = at; i < count; ++i) {
            narrowed[i] = last[i - at];
        }
    }
}

template <class V, class Row>
void widen(const std::uint16_t* values, std::size_t count, float* widened) {
    std::size_t at = 0;
    for (; at + V::width <= count; at += V::width) {
        V::store(widened + at, Row::load(values + at));
    }
    if (at < count) {
        float last[V::width];
        V::store(last, Row::load_first(values + at, count - at));
        for (std::size_t i = at; i < count; ++i) {
            widened[i] = last[i - at];
        }
    }
}

template <class V>
constexpr CodeKernels make_code_kernels(CodeKernels::ByteRows bytes, CodeKernels::ByteRows nibbles) {
    return CodeKernels{
        .byte_product_rows = bytes,
        .nibble_product_rows = nibbles,
        .bfloat16_product_rows = &score_rows<V, Bfloat16Row<V>, Product<V>>,
        .bfloat16_l2_squared_rows = &score_rows<V, Bfloat16Row<V>, SquaredDifference<V>>,
        .float16_product_rows = &score_rows<V, Float16Row<V>, Product<V>>,
        .float16_l2_squared_rows = &score_rows<V, Float16Row<V>, SquaredDifference<V>>,
        .float_product_rows = &score_rows<V, FloatRow<V>, Product<V>>,
        .float_l2_squared_rows = &score_rows<V, FloatRow<V>, SquaredDifference<V>>,
        .to_bfloat16 = &to_bfloat16<V>,
        .to_float16 = &to_float16<V>,
        .from_bfloat16 = &widen<V, Bfloat16Row<V>>,
        .from_float16 = &widen<V, Float16Row<V>>,
    };
}

}  // namespace
}  // namespace sage::distance
