#include "sage/common/crc32c.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string_view>
#include <vector>

namespace sage {
namespace {

std::vector<std::byte> filled(std::size_t count, int first, int step) {
    std::vector<std::byte> bytes(count);
    for (std::size_t i = 0; i < count; ++i) {
        bytes[i] = static_cast<std::byte>(first + step * static_cast<int>(i));
    }
    return bytes;
}

// RFC 3720, appendix B.4, and the check value of the catalogues.
TEST(Crc32c, GivesThePublishedValues) {
    for (auto* function : {&crc32c, &crc32c_by_tables}) {
        EXPECT_EQ(function({}, 0), 0U);
        EXPECT_EQ(function(filled(32, 0x00, 0), 0), 0x8A9136AAU);
        EXPECT_EQ(function(filled(32, 0xFF, 0), 0), 0x62A8AB43U);
        EXPECT_EQ(function(filled(32, 0, 1), 0), 0x46DD794EU);
        EXPECT_EQ(function(filled(32, 31, -1), 0), 0x113FDB5CU);
        EXPECT_EQ(function(std::as_bytes(std::span(std::string_view("123456789"))), 0), 0xE3069283U);
    }
}

// A bit at a time, from the definition.
std::uint32_t by_bits(std::span<const std::byte> bytes) {
    std::uint32_t state = 0xFFFFFFFFU;
    for (const std::byte byte : bytes) {
        state ^= static_cast<std::uint32_t>(byte);
        for (int bit = 0; bit < 8; ++bit) {
            state = (state >> 1) ^ ((state & 1U) != 0 ? 0x82F63B78U : 0U);
        }
    }
    return ~state;
}

TEST(Crc32c, AgreesWithTheDefinitionForAllLengthsPlacesAndPieces) {
    std::mt19937 random(1);
    std::vector<std::byte> bytes(300);
    for (std::byte& byte : bytes) {
        byte = static_cast<std::byte>(random());
    }
    for (std::size_t begin = 0; begin < 9; ++begin) {
        for (std::size_t count = 0; count + begin <= bytes.size(); ++count) {
            const auto part = std::span<const std::byte>(bytes).subspan(begin, count);
            const std::uint32_t expected = by_bits(part);
            ASSERT_EQ(crc32c(part), expected) << begin << " " << count;
            ASSERT_EQ(crc32c_by_tables(part), expected) << begin << " " << count;
            const std::size_t middle = count / 3;
            ASSERT_EQ(crc32c(part.subspan(middle), crc32c(part.first(middle))), expected);
        }
    }
}

TEST(Crc32c, UsesTheProcessorWhereTheBuildKnowsHow) {
#if defined(__x86_64__) || defined(_M_X64)
    EXPECT_EQ(crc32c_has_hardware(), __builtin_cpu_supports("sse4.2") != 0);
#else
    SUCCEED() << crc32c_has_hardware();
#endif
}

}  // namespace
}  // namespace sage
