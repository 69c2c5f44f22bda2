// Ranges of a filter's comparison: of the ordered keys of a field of numbers or times, and of strings. Internal.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "sage/vdb/filter.hpp"

namespace sage::vdb::detail {

inline constexpr std::int64_t key_min = std::numeric_limits<std::int64_t>::min();
inline constexpr std::int64_t key_max = std::numeric_limits<std::int64_t>::max();

// Keys low..high, both included; empty where low > high.
struct KeyRange {
    std::int64_t low = 1;
    std::int64_t high = 0;
    [[nodiscard]] bool contains(std::int64_t key) const noexcept { return low <= key && key <= high; }
};

// Where a value lies among the keys of a field: the keys that equal it, the last one below, the first one above.
struct Place {
    std::optional<KeyRange> equal;
    std::optional<std::int64_t> below;
    std::optional<std::int64_t> above;
};

[[nodiscard]] Place place_of_integer(std::int64_t value);
// A float among integers.
[[nodiscard]] Place place_among_integers(double value);
// A float among the keys of floats; both zeros are equal.
[[nodiscard]] Place place_of_float(double value);
// An integer among floats, by its exact value.
[[nodiscard]] Place place_among_floats(std::int64_t value);
// The keys that a comparison with a value of that place takes.
[[nodiscard]] KeyRange range_of(FilterOp op, const Place& place);

// A range of strings; a prefix is one, too.
struct TextRange {
    std::optional<std::string> low;
    std::optional<std::string> high;
    bool low_open = false;
    bool high_open = false;
    bool prefix = false;  // of `low`

    [[nodiscard]] bool before(std::string_view text) const { return low && (low_open ? text <= *low : text < *low); }
    [[nodiscard]] bool after(std::string_view text) const {
        if (prefix) {
            return text > *low && !text.starts_with(*low);
        }
        return high && (high_open ? text >= *high : text > *high);
    }
};

}  // namespace sage::vdb::detail
