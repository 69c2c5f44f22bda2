// Kernels over codes for AVX-512 F, BW, VL and VNNI. Compiled with those flags: run only after asking the CPU.
#include <immintrin.h>

#include "code_loops.hpp"

namespace sage::distance {
namespace {

struct Avx512 {
    using Reg = __m512;
    static constexpr std::size_t width = 16;

    static __m256i load_halves(const std::uint16_t* from) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    }

    static Reg zero() { return _mm512_setzero_ps(); }
    static Reg load(const float* from) { return _mm512_loadu_ps(from); }
    static Reg load_first(const float* from, std::size_t count) {
        return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << count) - 1U), from);
    }
    // The forms with a mask again: GCC 12 warns of the others.
    static Reg load_bfloat16(const std::uint16_t* from) {
        const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xFFFF, load_halves(from));
        return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xFFFF, wide, 16));
    }
    static Reg load_float16(const std::uint16_t* from) { return _mm512_maskz_cvtph_ps(0xFFFF, load_halves(from)); }
    static void store(float* to, Reg a) { _mm512_storeu_ps(to, a); }
    static void narrow_bfloat16(Reg a, std::uint16_t* to) {
        const __m512i bits = _mm512_castps_si512(a);
        const __m512i odd = _mm512_and_si512(_mm512_maskz_srli_epi32(0xFFFF, bits, 16), _mm512_set1_epi32(1));
        const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
        const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
        const __mmask16 is_nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
        const __m512i high = _mm512_maskz_srli_epi32(0xFFFF, _mm512_mask_mov_epi32(rounded, is_nan, quiet), 16);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_maskz_cvtepi32_epi16(0xFFFF, high));
    }
    static void narrow_float16(Reg a, std::uint16_t* to) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                            _mm512_maskz_cvtps_ph(0xFFFF, a, _MM_FROUND_TO_NEAREST_INT));
    }
    static Reg add_product(Reg sum, Reg a, Reg b) { return _mm512_fmadd_ps(a, b, sum); }
    static Reg add_squared_difference(Reg sum, Reg a, Reg b) {
        const Reg difference = _mm512_sub_ps(a, b);
        return _mm512_fmadd_ps(difference, difference, sum);
    }
    static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
    static float reduce(Reg a) {
        const __m512d whole = _mm512_castps_pd(a);
        const __m256 half = _mm256_add_ps(_mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xF, whole, 0)),
                                          _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xF, whole, 1)));
        __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
        sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        sum = _mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1));
        return _mm_cvtss_f32(sum);
    }
};

__m128i fold(__m512i a) {
    const __m256i half = _mm256_add_epi32(_mm512_maskz_extracti64x4_epi64(0xF, a, 0),
                                          _mm512_maskz_extracti64x4_epi64(0xF, a, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// The sums of four registers at once: fewer shuffles than one after the other.
void reduce_four(const __m512i* sums, std::int32_t* products) {
    const __m128i first = fold(sums[0]);
    const __m128i second = fold(sums[1]);
    const __m128i third = fold(sums[2]);
    const __m128i fourth = fold(sums[3]);
    const __m128i ab = _mm_add_epi32(_mm_unpacklo_epi32(first, second), _mm_unpackhi_epi32(first, second));
    const __m128i cd = _mm_add_epi32(_mm_unpacklo_epi32(third, fourth), _mm_unpackhi_epi32(third, fourth));
    const __m128i all = _mm_add_epi32(_mm_unpacklo_epi64(ab, cd), _mm_unpackhi_epi64(ab, cd));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(products), all);
}

std::int32_t reduce_one(__m512i a) {
    __m128i sum = fold(a);
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
    return _mm_cvtsi128_si32(sum);
}

__mmask64 first_bytes(std::size_t count) { return count >= 64 ? ~0ULL : (1ULL << count) - 1ULL; }

template <std::size_t Count>
void sum_bytes(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t dimension, __m512i* sums) {
    for (std::size_t row = 0; row < Count; ++row) {
        sums[row] = _mm512_setzero_si512();
    }
    std::size_t at = 0;
    for (; at + 64 <= dimension; at += 64) {
        const __m512i values = _mm512_loadu_si512(query + at);
        for (std::size_t row = 0; row < Count; ++row) {
            sums[row] = _mm512_dpbusd_epi32(sums[row], _mm512_loadu_si512(rows[row] + at), values);
        }
    }
    if (at < dimension) {
        const __mmask64 mask = first_bytes(dimension - at);
        const __m512i values = _mm512_maskz_loadu_epi8(mask, query + at);
        for (std::size_t row = 0; row < Count; ++row) {
            sums[row] = _mm512_dpbusd_epi32(sums[row], _mm512_maskz_loadu_epi8(mask, rows[row] + at), values);
        }
    }
}

template <std::size_t Count>
void sum_nibbles(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t dimension, __m512i* sums) {
    const __m512i low_half = _mm512_set1_epi8(15);
    for (std::size_t row = 0; row < Count; ++row) {
        sums[row] = _mm512_setzero_si512();
    }
    for (std::size_t at = 0; at < dimension; at += nibble_block) {
        const std::size_t left = dimension - at < nibble_block ? dimension - at : nibble_block;
        const std::size_t half = (left + 1) / 2;
        const __mmask64 low_mask = first_bytes(half);
        const __m512i low = _mm512_maskz_loadu_epi8(low_mask, query + at);
        const __m512i high = _mm512_maskz_loadu_epi8(first_bytes(left - half), query + at + half);
        for (std::size_t row = 0; row < Count; ++row) {
            const __m512i packed = _mm512_maskz_loadu_epi8(low_mask, rows[row] + at / 2);
            sums[row] = _mm512_dpbusd_epi32(sums[row], _mm512_and_si512(packed, low_half), low);
            const __m512i shifted = _mm512_maskz_srli_epi32(0xFFFF, packed, 4);
            sums[row] = _mm512_dpbusd_epi32(sums[row], _mm512_and_si512(shifted, low_half), high);
        }
    }
}

void byte_rows(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t row_count,
               std::size_t dimension, std::int32_t* products) {
    __m512i sums[4];
    std::size_t row = 0;
    for (; row + 4 <= row_count; row += 4) {
        sum_bytes<4>(query, rows + row, dimension, sums);
        reduce_four(sums, products + row);
    }
    for (; row < row_count; ++row) {
        sum_bytes<1>(query, rows + row, dimension, sums);
        products[row] = reduce_one(sums[0]);
    }
}

void nibble_rows(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t row_count,
                 std::size_t dimension, std::int32_t* products) {
    __m512i sums[4];
    std::size_t row = 0;
    for (; row + 4 <= row_count; row += 4) {
        sum_nibbles<4>(query, rows + row, dimension, sums);
        reduce_four(sums, products + row);
    }
    for (; row < row_count; ++row) {
        sum_nibbles<1>(query, rows + row, dimension, sums);
        products[row] = reduce_one(sums[0]);
    }
}

}  // namespace

constinit const CodeKernels avx512_code_kernels = make_code_kernels<Avx512>(&byte_rows, &nibble_rows);

}  // namespace sage::distance
