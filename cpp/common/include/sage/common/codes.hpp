// Distances from one query to stored forms of vectors that are smaller than float32: 8-bit and 4-bit codes,
// bfloat16 and float16.
//
// Rules that hold at every SIMD level:
// - A dimension of 0 gives 0. Pointers need the alignment of their element and no more.
// - Integer results are exact, the same at every level, and fit: dimension_max * 255 * 128 < 2^31.
// - Float results follow IEEE 754 up to the order of summation; NaN in, NaN out.
// - The *_rows forms take one pointer per row: the rows may lie anywhere, as the neighbours of a graph's node do.
//   They give for each row bit for bit what a call with that row alone gives.
//
// A 4-bit row holds two values per byte, in blocks of 128: byte i of a block has value i in its low half and value
// 64 + i in its high half. A last block of n < 128 values has ceil(n / 2) bytes, split at ceil(n / 2) alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "sage/common/cpu.hpp"

namespace sage::distance {

inline constexpr std::size_t code_dimension_max = 65536;

// The kernels of one SIMD level. No checks: the callers have made them.
struct CodeKernels {
    using ByteRows = void (*)(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t row_count,
                              std::size_t dimension, std::int32_t* products);
    using HalfRows = void (*)(const float* query, const std::uint16_t* const* rows, std::size_t row_count,
                              std::size_t dimension, float* scores);
    using FloatRows = void (*)(const float* query, const float* const* rows, std::size_t row_count,
                               std::size_t dimension, float* scores);
    using Narrow = void (*)(const float* values, std::size_t count, std::uint16_t* narrowed);
    using Widen = void (*)(const std::uint16_t* values, std::size_t count, float* widened);

    // Inner products of int8 with uint8 rows.
    ByteRows byte_product_rows;
    // Inner products of int8 with packed rows of 4 bits, values 0 to 15.
    ByteRows nibble_product_rows;
    // Inner products and sums of squared differences with bfloat16 and float16 rows.
    HalfRows bfloat16_product_rows;
    HalfRows bfloat16_l2_squared_rows;
    HalfRows float16_product_rows;
    HalfRows float16_l2_squared_rows;
    FloatRows float_product_rows;
    FloatRows float_l2_squared_rows;
    // To the nearest, ties to even. NaN stays NaN; too large for float16 becomes infinity.
    Narrow to_bfloat16;
    Narrow to_float16;
    Widen from_bfloat16;
    Widen from_float16;
};

// The kernels of this process: those of simd::active_level(). AVX-512 without VNNI takes the AVX2 ones.
[[nodiscard]] const CodeKernels& code_kernels();

// The kernels of one level, to compare them. Throws InvalidArgument when the level is not available.
[[nodiscard]] const CodeKernels& code_kernels(simd::Level level);

// Bytes of a row of 4-bit codes.
[[nodiscard]] constexpr std::size_t nibble_bytes(std::size_t dimension) noexcept {
    return dimension / 128 * 64 + (dimension % 128 + 1) / 2;
}
// Packs values of 0 to 15 as described above. Throws InvalidArgument when `packed` has not nibble_bytes() or a value
// is larger.
void pack_nibbles(std::span<const std::uint8_t> values, std::span<std::uint8_t> packed);

}  // namespace sage::distance
