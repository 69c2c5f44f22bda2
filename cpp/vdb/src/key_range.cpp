#include "key_range.hpp"

#include <cmath>

#include "metadata_state.hpp"

namespace sage::vdb::detail {

Place place_of_integer(std::int64_t value) {
    return {KeyRange{value, value}, value == key_min ? std::nullopt : std::optional(value - 1),
            value == key_max ? std::nullopt : std::optional(value + 1)};
}

Place place_among_integers(double value) {
    constexpr double end = 9223372036854775808.0;  // 2^63
    if (value < -end) {
        return {std::nullopt, std::nullopt, key_min};
    }
    if (value >= end) {
        return {std::nullopt, key_max, std::nullopt};
    }
    const double floor = std::floor(value);
    if (floor == value) {
        return place_of_integer(static_cast<std::int64_t>(floor));
    }
    return {std::nullopt, static_cast<std::int64_t>(floor), static_cast<std::int64_t>(floor) + 1};
}

Place place_of_float(double value) {
    const std::int64_t low = float_key(value == 0 ? -0.0 : value);
    const std::int64_t high = float_key(value == 0 ? 0.0 : value);
    return {KeyRange{low, high}, low - 1, high + 1};
}

Place place_among_floats(std::int64_t value) {
    const auto rounded = static_cast<double>(value);
    const bool up = rounded >= 9223372036854775808.0 || static_cast<std::int64_t>(rounded) > value;
    if (!up && static_cast<std::int64_t>(rounded) == value) {
        return place_of_float(rounded);
    }
    // Numbers that large are their neighbours' only: neither is a zero.
    const std::int64_t key = float_key(rounded);
    return up ? Place{std::nullopt, key - 1, key} : Place{std::nullopt, key, key + 1};
}

KeyRange range_of(FilterOp op, const Place& place) {
    const auto up_to = [](std::optional<std::int64_t> high) { return high ? KeyRange{key_min, *high} : KeyRange{}; };
    const auto from = [](std::optional<std::int64_t> low) { return low ? KeyRange{*low, key_max} : KeyRange{}; };
    switch (op) {
        case FilterOp::less: return up_to(place.below);
        case FilterOp::less_equal: return up_to(place.equal ? place.equal->high : place.below);
        case FilterOp::greater: return from(place.above);
        case FilterOp::greater_equal: return from(place.equal ? place.equal->low : place.above);
        default: return place.equal.value_or(KeyRange{});
    }
}

}  // namespace sage::vdb::detail
