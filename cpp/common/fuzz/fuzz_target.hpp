// What every fuzz target defines, for libFuzzer and for the driver that stands in for it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

namespace sage::fuzz {

using Input = std::vector<std::uint8_t>;
using Inputs = std::vector<Input>;

// Examples of sound input, of the target that is linked.
[[nodiscard]] Inputs seeds();

inline Input input_of(std::span<const std::byte> bytes) {
    const auto* first = reinterpret_cast<const std::uint8_t*>(bytes.data());
    return {first, first + bytes.size()};
}

inline bool same(std::span<const std::byte> a, std::span<const std::byte> b) { return std::ranges::equal(a, b); }

// A finding: both fuzzers stop at it and keep the input.
inline void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

}  // namespace sage::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
