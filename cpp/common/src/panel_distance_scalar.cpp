// Panel kernels without vector instructions.
#include <cmath>

#include "panel_loops.hpp"

namespace sage::distance {
namespace {

struct Scalar {
    using Reg = float;
    static constexpr std::size_t width = 1;
    static Reg zero() { return 0.0F; }
    static Reg load(const float* from) { return *from; }
    static void store(float* to, Reg a) { *to = a; }
    static Reg broadcast(float x) { return x; }
    static Reg load_first(const float* from, std::size_t /*count*/) { return *from; }
    static Reg add(Reg a, Reg b) { return a + b; }
    static Reg subtract(Reg a, Reg b) { return a - b; }
    static float reduce(Reg a) { return a; }
    static Reg add_product(Reg sum, Reg a, Reg b) { return sum + a * b; }
};

std::uint64_t select(const float* products, const float* addends, float factor, float limit, float* costs) {
    std::uint64_t mask = 0;
    for (std::size_t row = 0; row < panel_rows; ++row) {
        costs[row] = addends[row] + factor * products[row];
        mask |= std::uint64_t{costs[row] <= limit} << row;
    }
    return mask;
}

void bit_rows(const std::int8_t* query, const std::uint8_t* const* rows, std::size_t row_count, std::size_t words,
              std::int32_t* products) {
    for (std::size_t row = 0; row < row_count; ++row) {
        std::int32_t sum = 0;
        for (std::size_t i = 0; i < words * 8; ++i) {
            const unsigned byte = rows[row][i];
            for (unsigned bit = 0; bit < 8; ++bit) {
                sum += (byte >> bit & 1U) != 0 ? query[i * 8 + bit] : 0;
            }
        }
        products[row] = sum;
    }
}

}  // namespace

constinit const PanelKernels scalar_panel_kernels{&pack_panel, &multiply<Scalar, 8, 2>, &select, &bit_rows,
    &stream_rows<Scalar, RowProduct>, &stream_rows<Scalar, RowSquaredDifference>};

}  // namespace sage::distance
