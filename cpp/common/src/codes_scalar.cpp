// Kernels over codes in plain C++: what every machine can run, and the reference for the others.
#include <bit>
#include <cmath>

#include "code_loops.hpp"

namespace sage::distance {
namespace {

float widen_float16(std::uint16_t half) {
    const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16U;
    const std::uint32_t exponent = (half >> 10U) & 0x1FU;
    const std::uint32_t fraction = half & 0x3FFU;
    if (exponent == 0) {
        // Zero and subnormals: a multiple of 2^-24.
        const float value = static_cast<float>(fraction) * 0x1p-24F;
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
    }
    if (exponent == 31) {
        return std::bit_cast<float>(sign | 0x7F800000U | (fraction << 13U));
    }
    return std::bit_cast<float>(sign | ((exponent + 112U) << 23U) | (fraction << 13U));
}

std::uint16_t narrow_to_float16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (bits >> 16U) & 0x8000U;
    const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
    if (magnitude > 0x7F800000U) {
        return static_cast<std::uint16_t>(sign | 0x7E00U | ((magnitude >> 13U) & 0x3FFU));
    }
    if (magnitude >= 0x477FF000U) {  // 65520 and above round to infinity
        return static_cast<std::uint16_t>(sign | 0x7C00U);
    }
    if (magnitude < 0x38800000U) {  // below 2^-14: adding 0.5 leaves a multiple of 2^-24 in the last bits
        const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
        return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000U));
    }
    const std::uint32_t rounded = magnitude + 0xFFFU + ((magnitude >> 13U) & 1U) - (112U << 23U);
    return static_cast<std::uint16_t>(sign | (rounded >> 13U));
}

std::uint16_t narrow_to_bfloat16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) {
        return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
    }
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U);
}

struct Scalar {
    static constexpr std::size_t width = 4;
    struct Reg {
        float lane[width];
    };

    static Reg zero() { return Reg{}; }
    static Reg load_first(const float* from, std::size_t count) {
        Reg out{};
        for (std::size_t i = 0; i < count; ++i) {
            out.lane[i] = from[i];
        }
        return out;
    }
    static Reg load(const float* from) { return load_first(from, width); }
    static Reg load_bfloat16(const std::uint16_t* from) {
        Reg out;
        for (std::size_t i = 0; i < width; ++i) {
            out.lane[i] = std::bit_cast<float>(static_cast<std::uint32_t>(from[i]) << 16U);
        }
        return out;
    }
    static Reg load_float16(const std::uint16_t* from) {
        Reg out;
        for (std::size_t i = 0; i < width; ++i) {
            out.lane[i] = widen_float16(from[i]);
        }
        return out;
    }
    static void store(float* to, Reg a) {
        for (std::size_t i = 0; i < width; ++i) {
            to[i] = a.lane[i];
        }
    }
    static void narrow_bfloat16(Reg a, std::uint16_t* to) {
        for (std::size_t i = 0; i < width; ++i) {
            to[i] = narrow_to_bfloat16(a.lane[i]);
        }
    }
    static void narrow_float16(Reg a, std::uint16_t* to) {
        for (std::size_t i = 0; i < width; ++i) {
            to[i] = narrow_to_float16(a.lane[i]);
        }
    }
    static Reg add_product(Reg sum, Reg a, Reg b) {
        for (std::size_t i = 0; i < width; ++i) {
            sum.lane[i] += a.lane[i] * b.lane[i];
        }
        return sum;
    }
    static Reg add_squared_difference(Reg sum, Reg a, Reg b) {
        for (std::size_t i = 0; i < width; ++i) {
            const float difference = a.lane[i] - b.lane[i];
            sum.lane[i] += difference * difference;
        }
        return sum;
    }
    static Reg add(Reg a, Reg b) {
        for (std::size_t i = 0; i < width; ++i) {
            a.lane[i] += b.lane[i];
        }
        return a;
    }
    static float reduce(Reg a) { return (a.lane[0] + a.lane[2]) + (a.lane[1] + a.lane[3]); }
};

void byte_rows(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t row_count,
               std::size_t dimension, std::int32_t* products) {
    for (std::size_t row = 0; row < row_count; ++row) {
        std::int32_t sum = 0;
        for (std::size_t i = 0; i < dimension; ++i) {
            sum += static_cast<std::int32_t>(query[i]) * static_cast<std::int32_t>(rows[row][i]);
        }
        products[row] = sum;
    }
}

std::int32_t nibble_block_product(const std::int8_t* query, const std::uint8_t* packed, std::size_t count) {
    const std::size_t half = (count + 1) / 2;
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < half; ++i) {
        sum += static_cast<std::int32_t>(query[i]) * (packed[i] & 15);
        if (half + i < count) {
            sum += static_cast<std::int32_t>(query[half + i]) * (packed[i] >> 4);
        }
    }
    return sum;
}

void nibble_rows(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t row_count,
                 std::size_t dimension, std::int32_t* products) {
    for (std::size_t row = 0; row < row_count; ++row) {
        std::int32_t sum = 0;
        for (std::size_t at = 0; at < dimension; at += nibble_block) {
            const std::size_t count = dimension - at < nibble_block ? dimension - at : nibble_block;
            sum += nibble_block_product(query + at, rows[row] + at / 2, count);
        }
        products[row] = sum;
    }
}

}  // namespace

constinit const CodeKernels scalar_code_kernels = make_code_kernels<Scalar>(&byte_rows, &nibble_rows);

}  // namespace sage::distance
