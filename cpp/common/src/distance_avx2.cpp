// Kernels for AVX2 with FMA. Compiled with those flags: run only after asking the CPU.
#include <immintrin.h>

#include "kernel_loops.hpp"

namespace sage::distance {
namespace {

// 8 - count ints into this table start a mask whose first `count` lanes are on.
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
    static float square_root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
};

}  // namespace

constinit const Kernels avx2_kernels = make_kernels<Avx2>();

}  // namespace sage::distance
