#include "row_sketch.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace sage::vdb {
namespace {

constexpr std::size_t block_slots = 64;
constexpr float code_max = 127.0F;
// So far ahead codes are fetched: what comes from memory is on its way while those before are multiplied.
constexpr std::size_t fetch_ahead_bytes = 8192;
constexpr std::size_t burst_bytes = 4096;

// Sums in double of some ten thousand floats, and the last rounding to float, are off by far less than this.
float above(double value) { return static_cast<float>(value * (1.0 + 1e-6)); }
float below(double value) { return static_cast<float>(value * (1.0 - 1e-6)); }

struct Rounded {
    float step = 0.0F;
    double squares = 0.0;           // of the values
    double decoded_squares = 0.0;   // of step * code
    double left_out_squares = 0.0;  // of their differences
    std::int64_t sum = 0;           // of the codes
};

// Codes between -127 and 127, each plus `base`.
template <class Code>
Rounded round_values(const float* values, std::size_t count, int base, Code* codes) {
    float most = 0.0F;
    for (std::size_t i = 0; i < count; ++i) {
        most = std::max(most, std::fabs(values[i]));
    }
    Rounded rounded;
    rounded.step = most / code_max;
    const float inverse = rounded.step > 0.0F && std::isfinite(1.0F / rounded.step) ? 1.0F / rounded.step : 0.0F;
    for (std::size_t i = 0; i < count; ++i) {
        const float code = std::clamp(std::nearbyint(values[i] * inverse), -code_max, code_max);
        const auto value = static_cast<double>(values[i]);
        const double decoded = static_cast<double>(rounded.step) * static_cast<double>(code);
        codes[i] = static_cast<Code>(static_cast<int>(code) + base);
        rounded.squares += value * value;
        rounded.decoded_squares += decoded * decoded;
        rounded.left_out_squares += (value - decoded) * (value - decoded);
        rounded.sum += static_cast<std::int64_t>(code);
    }
    return rounded;
}

}  // namespace

RowSketch::RowSketch(std::size_t dimension, Metric metric)
    : dimension_(dimension),
      metric_(metric),
      kernels_(distance::code_kernels()),
      rounding_(static_cast<float>(dimension + 64) / 8388608.0F),
      codes_((dimension + cache_line_bytes - 1) / cache_line_bytes * cache_line_bytes) {}

void RowSketch::reserve(std::size_t end) {
    codes_.reserve(end, [](std::uint8_t*, std::size_t) {});
    bounds_.reserve(end, [](Bound*, std::size_t) {});
}

void RowSketch::encode(Slot slot, const float* vector) {
    const Rounded rounded = round_values(vector, dimension_, 128, codes_.row(slot));
    *bounds_.row(slot) = {rounded.step, below(rounded.squares), above(std::sqrt(rounded.decoded_squares)),
                          above(std::sqrt(rounded.left_out_squares))};
}

void RowSketch::prepare(const float* query, Query& prepared) const {
    prepared.codes.resize(dimension_);
    const Rounded rounded = round_values(query, dimension_, 0, prepared.codes.data());
    prepared.step = rounded.step;
    prepared.offset = static_cast<std::int32_t>(128 * rounded.sum);
    prepared.length = above(std::sqrt(rounded.squares));
    prepared.left_out = above(std::sqrt(rounded.left_out_squares));
    prepared.squares_low = below(rounded.squares);
}

std::uint64_t RowSketch::within(const Query& query, Slot first, std::uint64_t wanted, float limit) const {
    const std::uint8_t* rows[block_slots];
    std::uint32_t places[block_slots];
    std::size_t count = 0;
    const std::uint8_t* codes = codes_.row(first);
    for (std::uint64_t mask = wanted; mask != 0; mask &= mask - 1) {
        const auto place = static_cast<std::uint32_t>(std::countr_zero(mask));
        places[count] = place;
        rows[count++] = codes + place * codes_.stride();
    }
    std::int32_t products[block_slots];
    const std::size_t burst = std::max<std::size_t>(1, burst_bytes / codes_.stride());
    for (std::size_t begin = 0; begin < count; begin += burst) {
        const std::size_t here = std::min(burst, count - begin);
        // Addresses behind the end do no harm.
        const auto ahead = reinterpret_cast<std::uintptr_t>(rows[begin]) + fetch_ahead_bytes;
        for (std::size_t at = 0; at < here * codes_.stride(); at += cache_line_bytes) {
            __builtin_prefetch(reinterpret_cast<const void*>(ahead + at));
        }
        kernels_.byte_product_rows(query.codes.data(), rows + begin, here, dimension_, products + begin);
    }
    const Bound* bounds = bounds_.row(first);
    std::uint64_t found = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const Bound& bound = bounds[places[i]];
        const float product = bound.step * query.step * static_cast<float>(products[i] - query.offset);
        const float off = query.left_out * bound.length + query.length * bound.left_out +
                          rounding_ * query.length * (bound.length + bound.left_out);
        float lowest = -(product + off);
        if (metric_ == Metric::l2) {
            const float squares = query.squares_low + bound.squares_low;
            lowest = squares * (1.0F - 4.0F * rounding_) - 2.0F * (product + off);
        }
        // Written so that what is not a number passes.
        found |= static_cast<std::uint64_t>(!(lowest > limit)) << places[i];
    }
    return found;
}

}  // namespace sage::vdb
