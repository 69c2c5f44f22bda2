// Kernels in plain C++: what every machine can run, and the reference for the others.
#include <cmath>

#include "kernel_loops.hpp"

namespace sage::distance {
namespace {

struct Scalar {
    // Four sums side by side are one register of every baseline that has vectors at all; more would spill.
    static constexpr std::size_t width = 4;
    struct Reg {
        float lane[width];
    };

    static Reg zero() { return Reg{}; }
    static Reg load(const float* from) {
        Reg out;
        for (std::size_t i = 0; i < width; ++i) {
            out.lane[i] = from[i];
        }
        return out;
    }
    static Reg load_first(const float* from, std::size_t count) {
        Reg out{};
        for (std::size_t i = 0; i < count; ++i) {
            out.lane[i] = from[i];
        }
        return out;
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
    static float reduce(Reg a) {
        return (a.lane[0] + a.lane[2]) + (a.lane[1] + a.lane[3]);
    }
    static float square_root(float x) { return std::sqrt(x); }
};

}  // namespace

constinit const Kernels scalar_kernels = make_kernels<Scalar>();

}  // namespace sage::distance
