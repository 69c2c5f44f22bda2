// Kernels for AVX-512F. Compiled with that flag: run only after asking the CPU.
#include <immintrin.h>

#include "kernel_loops.hpp"

namespace sage::distance {
namespace {

struct Avx512 {
    using Reg = __m512;
    static constexpr std::size_t width = 16;

    static Reg zero() { return _mm512_setzero_ps(); }
    static Reg load(const float* from) { return _mm512_loadu_ps(from); }
    static Reg load_first(const float* from, std::size_t count) {
        const auto mask = static_cast<__mmask16>((1U << count) - 1U);
        return _mm512_maskz_loadu_ps(mask, from);
    }
    static Reg add_product(Reg sum, Reg a, Reg b) { return _mm512_fmadd_ps(a, b, sum); }
    static Reg add_squared_difference(Reg sum, Reg a, Reg b) {
        const Reg difference = _mm512_sub_ps(a, b);
        return _mm512_fmadd_ps(difference, difference, sum);
    }
    static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
    static float reduce(Reg a) {
        // Not _mm512_reduce_add_ps, nor the casts: in GCC 12 they warn of their own uninitialised temporaries. The
        // forms with a mask have none.
        const __m512d whole = _mm512_castps_pd(a);
        const __m256d lower = _mm512_maskz_extractf64x4_pd(0xF, whole, 0);
        const __m256d upper = _mm512_maskz_extractf64x4_pd(0xF, whole, 1);
        const __m256 half = _mm256_add_ps(_mm256_castpd_ps(lower), _mm256_castpd_ps(upper));
        __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
        sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        sum = _mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1));
        return _mm_cvtss_f32(sum);
    }
    static float square_root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
};

}  // namespace

constinit const Kernels avx512_kernels = make_kernels<Avx512>();

}  // namespace sage::distance
