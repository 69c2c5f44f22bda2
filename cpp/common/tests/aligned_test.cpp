#include "sage/common/aligned.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace sage {
namespace {

TEST(AlignedVector, StartsOnACacheLineAfterEveryGrowth) {
    AlignedVector<float> values;
    for (int i = 0; i < 5000; ++i) {
        values.push_back(static_cast<float>(i));
        ASSERT_EQ(reinterpret_cast<std::uintptr_t>(values.data()) % cache_line_bytes, 0U) << "at size " << i;
    }
    for (int i = 0; i < 5000; ++i) {
        ASSERT_EQ(values[static_cast<std::size_t>(i)], static_cast<float>(i));
    }
}

TEST(AlignedVector, StartsOnAHugePageWhenItIsBig) {
    const std::size_t count = huge_page_threshold_bytes / sizeof(float);
    AlignedVector<float> below(count - 1, 1.0F);
    AlignedVector<float> big(count + 3, 2.0F);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(below.data()) % cache_line_bytes, 0U);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(big.data()) % huge_page_bytes, 0U);
    // Every size class takes its memory back under the alignment it was given with, or a sanitizer complains.
    below = big;
    big.resize(10);
    big.shrink_to_fit();
    EXPECT_EQ(below.back(), 2.0F);
    EXPECT_EQ(big.back(), 2.0F);
}

TEST(AlignedAllocator, RefusesASizeThatOverflows) {
    AlignedAllocator<double> allocator;
    EXPECT_THROW(static_cast<void>(allocator.allocate(std::numeric_limits<std::size_t>::max() / 4)),
                 std::bad_array_new_length);
}

TEST(AlignedAllocator, AllAreEqual) {
    EXPECT_TRUE(AlignedAllocator<float>() == AlignedAllocator<double>());
}

}  // namespace
}  // namespace sage
