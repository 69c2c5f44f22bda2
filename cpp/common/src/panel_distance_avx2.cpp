// Panel kernels for AVX2 and FMA. Compiled with those flags: run only after asking the CPU.
#include <immintrin.h>

#include "panel_loops.hpp"

namespace sage::distance {
namespace {

struct Avx2 {
    using Reg = __m256;
    static constexpr std::size_t width = 8;
    static Reg zero() { return _mm256_setzero_ps(); }
    static Reg load(const float* from) { return _mm256_loadu_ps(from); }
    static void store(float* to, Reg a) { _mm256_storeu_ps(to, a); }
    static Reg broadcast(float x) { return _mm256_set1_ps(x); }
    static Reg load_first(const float* from, std::size_t count) {
        float padded[8] = {};
        for (std::size_t i = 0; i < count; ++i) {
            padded[i] = from[i];
        }
        return _mm256_loadu_ps(padded);
    }
    static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
    static Reg subtract(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
    static float reduce(Reg a) {
        __m128 sum = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        return _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1)));
    }
    static Reg add_product(Reg sum, Reg a, Reg b) { return _mm256_fmadd_ps(a, b, sum); }
};

std::uint64_t select(const float* products, const float* addends, float factor, float limit, float* costs) {
    const __m256 factors = _mm256_set1_ps(factor);
    const __m256 limits = _mm256_set1_ps(limit);
    std::uint64_t mask = 0;
    for (std::size_t at = 0; at < panel_rows; at += 8) {
        const __m256 cost =
            _mm256_fmadd_ps(factors, _mm256_loadu_ps(products + at), _mm256_loadu_ps(addends + at));
        _mm256_storeu_ps(costs + at, cost);
        const int below = _mm256_movemask_ps(_mm256_cmp_ps(cost, limits, _CMP_LE_OQ));
        mask |= static_cast<std::uint64_t>(static_cast<unsigned>(below)) << at;
    }
    return mask;
}

void bit_rows(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t row_count, std::size_t words,
              std::int32_t* products) {
    // Byte i of a register takes the byte of the row that has its bit, then keeps that bit alone.
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2,
                                            3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bits = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ULL));
    const __m256i ones = _mm256_set1_epi8(1);
    const __m256i pairs = _mm256_set1_epi16(1);
    for (std::size_t row = 0; row < row_count; ++row) {
        __m256i sum = _mm256_setzero_si256();
        for (std::size_t i = 0; i < words * 2; ++i) {
            int four = 0;
            __builtin_memcpy(&four, rows[row] + i * 4, 4);
            const __m256i here = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(four), spread), bits);
            const __m256i set = _mm256_and_si256(_mm256_cmpeq_epi8(here, bits), ones);
            const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(query + i * 32));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(set, values), pairs));
        }
        __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
        half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1));
        products[row] = _mm_cvtsi128_si32(half);
    }
}

}  // namespace

constinit const PanelKernels avx2_panel_kernels{&pack_panel, &multiply<Avx2, 2, 6>, &select, &bit_rows,
    &stream_rows<Avx2, RowProduct>, &stream_rows<Avx2, RowSquaredDifference>};

}  // namespace sage::distance
