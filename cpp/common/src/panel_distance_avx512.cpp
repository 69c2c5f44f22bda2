// Panel kernels for AVX-512 F, BW, VL and VNNI. Compiled with those flags: run only after asking the CPU.
#include <immintrin.h>

#include "panel_loops.hpp"

namespace sage::distance {
namespace {

struct Avx512 {
    using Reg = __m512;
    static constexpr std::size_t width = 16;
    static Reg zero() { return _mm512_setzero_ps(); }
    static Reg load(const float* from) { return _mm512_loadu_ps(from); }
    static void store(float* to, Reg a) { _mm512_storeu_ps(to, a); }
    static Reg broadcast(float x) { return _mm512_set1_ps(x); }
    static Reg load_first(const float* from, std::size_t count) {
        return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << count) - 1U), from);
    }
    static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
    static Reg subtract(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
    static float reduce(Reg a) {
        const __m512d whole = _mm512_castps_pd(a);
        const __m256 half = _mm256_add_ps(_mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xF, whole, 0)),
                                          _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xF, whole, 1)));
        __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
        sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        return _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1)));
    }
    static Reg add_product(Reg sum, Reg a, Reg b) { return _mm512_fmadd_ps(a, b, sum); }
};

std::uint64_t select(const float* products, const float* addends, float factor, float limit, float* costs) {
    const __m512 factors = _mm512_set1_ps(factor);
    const __m512 limits = _mm512_set1_ps(limit);
    std::uint64_t mask = 0;
    for (std::size_t at = 0; at < panel_rows; at += 16) {
        const __m512 cost =
            _mm512_fmadd_ps(factors, _mm512_loadu_ps(products + at), _mm512_loadu_ps(addends + at));
        _mm512_storeu_ps(costs + at, cost);
        mask |= static_cast<std::uint64_t>(_mm512_cmp_ps_mask(cost, limits, _CMP_LE_OQ)) << at;
    }
    return mask;
}

void bit_rows(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t row_count, std::size_t words,
              std::int32_t* products) {
    const __m512i ones = _mm512_set1_epi8(1);
    for (std::size_t row = 0; row < row_count; ++row) {
        __m512i sum = _mm512_setzero_si512();
        for (std::size_t i = 0; i < words; ++i) {
            std::uint64_t mask = 0;
            __builtin_memcpy(&mask, rows[row] + i * 8, 8);
            sum = _mm512_dpbusd_epi32(sum, ones, _mm512_maskz_loadu_epi8(mask, query + i * 64));
        }
        // The forms with a mask: GCC 12 warns of the others.
        const __m256i half = _mm256_add_epi32(_mm512_maskz_extracti64x4_epi64(0xF, sum, 0),
                                              _mm512_maskz_extracti64x4_epi64(0xF, sum, 1));
        __m128i quarter = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        quarter = _mm_add_epi32(quarter, _mm_shuffle_epi32(quarter, 0x4E));
        quarter = _mm_add_epi32(quarter, _mm_shuffle_epi32(quarter, 0xB1));
        products[row] = _mm_cvtsi128_si32(quarter);
    }
}

}  // namespace

constinit const PanelKernels avx512_panel_kernels{&pack_panel, &multiply<Avx512, 4, 6>, &select, &bit_rows,
    &stream_rows<Avx512, RowProduct>, &stream_rows<Avx512, RowSquaredDifference>};

}  // namespace sage::distance
