// Numbers in files: little-endian on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

namespace sage::storage {

template <class Number>
void put(std::span<std::byte> out, std::size_t at, Number number) {
    static_assert(std::is_unsigned_v<Number>);
    for (std::size_t i = 0; i < sizeof(Number); ++i) {
        out[at + i] = static_cast<std::byte>(static_cast<std::uint64_t>(number) >> (8 * i));
    }
}

template <class Number>
[[nodiscard]] Number get(std::span<const std::byte> in, std::size_t at) {
    static_assert(std::is_unsigned_v<Number>);
    std::uint64_t number = 0;
    for (std::size_t i = 0; i < sizeof(Number); ++i) {
        number |= static_cast<std::uint64_t>(in[at + i]) << (8 * i);
    }
    return static_cast<Number>(number);
}

[[nodiscard]] constexpr std::uint64_t round_up(std::uint64_t bytes, std::uint64_t multiple) noexcept {
    return (bytes + multiple - 1) / multiple * multiple;
}

[[nodiscard]] inline bool all_zero(std::span<const std::byte> bytes) noexcept {
    // A text of zeros equals itself moved by one.
    return bytes.empty() ||
           (bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

// As 0x0a1b2c3d.
[[nodiscard]] inline std::string hex(std::uint32_t number) {
    std::string text = "0x";
    for (int shift = 28; shift >= 0; shift -= 4) {
        text += "0123456789abcdef"[(number >> shift) & 0xFU];
    }
    return text;
}

}  // namespace sage::storage
