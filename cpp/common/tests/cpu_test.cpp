#include "sage/common/cpu.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "sage/common/error.hpp"

namespace sage::simd {
namespace {

TEST(AvailableLevels, AscendFromScalarWithoutRepetition) {
    const auto& levels = available_levels();
    ASSERT_FALSE(levels.empty());
    EXPECT_EQ(levels.front(), Level::scalar);
    EXPECT_TRUE(std::is_sorted(levels.begin(), levels.end()));
    EXPECT_EQ(std::adjacent_find(levels.begin(), levels.end()), levels.end());
}

TEST(ActiveLevel, IsAvailable) {
    const auto& levels = available_levels();
    EXPECT_NE(std::find(levels.begin(), levels.end(), active_level()), levels.end());
}

TEST(ChooseLevel, TakesTheBestWithoutARequest) {
    const std::vector<Level> available{Level::scalar, Level::avx2};
    EXPECT_EQ(choose_level(std::nullopt, available), Level::avx2);
    EXPECT_EQ(choose_level("", available), Level::avx2);
}

TEST(ChooseLevel, TakesWhatIsNamed) {
    const std::vector<Level> available{Level::scalar, Level::avx2, Level::avx512};
    EXPECT_EQ(choose_level("scalar", available), Level::scalar);
    EXPECT_EQ(choose_level("avx2", available), Level::avx2);
    EXPECT_EQ(choose_level("avx512", available), Level::avx512);
}

void expect_refused(const char* requested, const std::vector<Level>& available, const std::string& message) {
    try {
        static_cast<void>(choose_level(requested, available));
        FAIL() << requested << " was accepted";
    } catch (const InvalidArgument& error) {
        EXPECT_EQ(error.what(), message);
    }
}

TEST(ChooseLevel, RefusesAnUnknownNameAndOneThatTheMachineLacks) {
    expect_refused("sse9", {Level::scalar, Level::avx2},
                   "SAGE_SIMD must name an instruction set of this machine (scalar, avx2), got 'sse9'; unset it to use "
                   "the best one");
    expect_refused("avx512", {Level::scalar},
                   "SAGE_SIMD must name an instruction set of this machine (scalar), got 'avx512'; unset it to use the "
                   "best one");
    // No normalisation: a variable with a stray capital is a typing error like any other.
    expect_refused("AVX2", {Level::scalar, Level::avx2},
                   "SAGE_SIMD must name an instruction set of this machine (scalar, avx2), got 'AVX2'; unset it to use "
                   "the best one");
}

}  // namespace
}  // namespace sage::simd
