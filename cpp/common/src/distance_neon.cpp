// Kernels for NEON, which every 64-bit ARM has.
#include <arm_neon.h>

#include "kernel_loops.hpp"

namespace sage::distance {
namespace {

struct Neon {
    using Reg = float32x4_t;
    static constexpr std::size_t width = 4;

    static Reg zero() { return vdupq_n_f32(0.0F); }
    static Reg load(const float* from) { return vld1q_f32(from); }
    static Reg load_first(const float* from, std::size_t count) {
        float padded[width] = {0.0F, 0.0F, 0.0F, 0.0F};
        for (std::size_t i = 0; i < count; ++i) {
            padded[i] = from[i];
        }
        return vld1q_f32(padded);
    }
    static Reg add_product(Reg sum, Reg a, Reg b) { return vfmaq_f32(sum, a, b); }
    static Reg add_squared_difference(Reg sum, Reg a, Reg b) {
        const Reg difference = vsubq_f32(a, b);
        return vfmaq_f32(sum, difference, difference);
    }
    static Reg add(Reg a, Reg b) { return vaddq_f32(a, b); }
    static float reduce(Reg a) { return vaddvq_f32(a); }
    static float square_root(float x) { return vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0); }
};

}  // namespace

constinit const Kernels neon_kernels = make_kernels<Neon>();

}  // namespace sage::distance
