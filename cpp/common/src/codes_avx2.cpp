// Kernels over codes for AVX2 with FMA and F16C. Compiled with those flags: run only after asking the CPU.
#include <immintrin.h>

#include "code_loops.hpp"

namespace sage::distance {
namespace {

alignas(32) constexpr int mask_table[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

struct Avx2 {
    using Reg = __m256;
    static constexpr std::size_t width = 8;

    static Reg zero() { return _mm256_setzero_ps(); }
    static Reg load(const float* from) { return _mm256_loadu_ps(from); }
    static Reg load_first(const float* from, std::size_t count) {
        const __m256i mask = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask_table + (width - count)));
        return _mm256_maskload_ps(from, mask);
    }
    static Reg load_bfloat16(const std::uint16_t* from) {
        const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
    }
    static Reg load_float16(const std::uint16_t* from) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
    static void store(float* to, Reg a) { _mm256_storeu_ps(to, a); }
    static void narrow_bfloat16(Reg a, std::uint16_t* to) {
        const __m256i bits = _mm256_castps_si256(a);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
        const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
        const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
        const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
        const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), packed);
    }
    static void narrow_float16(Reg a, std::uint16_t* to) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
    }
    static Reg add_product(Reg sum, Reg a, Reg b) { return _mm256_fmadd_ps(a, b, sum); }
    static Reg add_squared_difference(Reg sum, Reg a, Reg b) {
        const Reg difference = _mm256_sub_ps(a, b);
        return _mm256_fmadd_ps(difference, difference, sum);
    }
    static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
    static float reduce(Reg a) {
        __m128 sum = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        sum = _mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1));
        return _mm_cvtss_f32(sum);
    }
};

std::int32_t reduce_integers(__m256i a) {
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
    return _mm_cvtsi128_si32(sum);
}

// 16 products at once. Not _mm256_maddubs_epi16: it saturates at 2 * 255 * 127.
__m256i add_bytes(__m256i sum, __m128i signed_bytes, __m128i unsigned_bytes) {
    const __m256i products =
        _mm256_madd_epi16(_mm256_cvtepi8_epi16(signed_bytes), _mm256_cvtepu8_epi16(unsigned_bytes));
    return _mm256_add_epi32(sum, products);
}

__m128i load_bytes(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }

void byte_rows(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t row_count,
               std::size_t dimension, std::int32_t* products) {
    for (std::size_t row = 0; row < row_count; ++row) {
        const std::uint8_t* values = rows[row];
        __m256i even = _mm256_setzero_si256();
        __m256i odd = _mm256_setzero_si256();
        std::size_t at = 0;
        for (; at + 32 <= dimension; at += 32) {
            even = add_bytes(even, load_bytes(query + at), load_bytes(values + at));
            odd = add_bytes(odd, load_bytes(query + at + 16), load_bytes(values + at + 16));
        }
        std::int32_t sum = reduce_integers(_mm256_add_epi32(even, odd));
        for (; at < dimension; ++at) {
            sum += static_cast<std::int32_t>(query[at]) * static_cast<std::int32_t>(values[at]);
        }
        products[row] = sum;
    }
}

void nibble_rows(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t row_count,
                 std::size_t dimension, std::int32_t* products) {
    const __m128i low_half = _mm_set1_epi8(15);
    for (std::size_t row = 0; row < row_count; ++row) {
        __m256i low = _mm256_setzero_si256();
        __m256i high = _mm256_setzero_si256();
        std::size_t at = 0;
        for (; at + nibble_block <= dimension; at += nibble_block) {
            for (std::size_t i = 0; i < nibble_half; i += 16) {
                const __m128i packed = load_bytes(rows[row] + at / 2 + i);
                low = add_bytes(low, load_bytes(query + at + i), _mm_and_si128(packed, low_half));
                high = add_bytes(high, load_bytes(query + at + nibble_half + i),
                                 _mm_and_si128(_mm_srli_epi16(packed, 4), low_half));
            }
        }
        std::int32_t sum = reduce_integers(_mm256_add_epi32(low, high));
        const std::size_t half = (dimension - at + 1) / 2;
        for (std::size_t i = 0; i < half; ++i) {
            const std::uint8_t packed = rows[row][at / 2 + i];
            sum += static_cast<std::int32_t>(query[at + i]) * (packed & 15);
            if (at + half + i < dimension) {
                sum += static_cast<std::int32_t>(query[at + half + i]) * (packed >> 4);
            }
        }
        products[row] = sum;
    }
}

}  // namespace

constinit const CodeKernels avx2_code_kernels = make_code_kernels<Avx2>(&byte_rows, &nibble_rows);

}  // namespace sage::distance
