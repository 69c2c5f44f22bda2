// Every SIMD level against sums in double precision and against the scalar level.
#include "sage/common/distance.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "sage/common/aligned.hpp"
#include "sage/common/error.hpp"

namespace sage::distance {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

// A sum and what rounding may do to it, both from terms in double.
struct Expected {
    double value = 0.0;
    double tolerance = 0.0;
};

// n terms added in float in any order err by at most about n * eps * (sum of magnitudes).
Expected from_terms(const std::vector<double>& terms) {
    double sum = 0.0;
    double magnitude = 0.0;
    for (const double term : terms) {
        sum += term;
        magnitude += std::abs(term);
    }
    const double eps = std::numeric_limits<float>::epsilon();
    return {sum, (static_cast<double>(terms.size()) + 2.0) * eps * magnitude};
}

Expected inner_product_reference(const float* a, const float* b, std::size_t n) {
    std::vector<double> terms(n);
    for (std::size_t i = 0; i < n; ++i) {
        terms[i] = static_cast<double>(a[i]) * static_cast<double>(b[i]);
    }
    return from_terms(terms);
}

Expected l2_squared_reference(const float* a, const float* b, std::size_t n) {
    std::vector<double> terms(n);
    for (std::size_t i = 0; i < n; ++i) {
        const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        terms[i] = difference * difference;
    }
    Expected expected = from_terms(terms);
    // The difference itself is rounded, relative to itself, before it is squared.
    expected.tolerance *= 2.0;
    return expected;
}

Expected cosine_reference(const float* a, const float* b, std::size_t n) {
    const double lengths =
        std::sqrt(inner_product_reference(a, a, n).value) * std::sqrt(inner_product_reference(b, b, n).value);
    if (lengths == 0.0) {
        return {};
    }
    const Expected product = inner_product_reference(a, b, n);
    const double eps = std::numeric_limits<float>::epsilon();
    return {product.value / lengths, product.tolerance / lengths + (static_cast<double>(n) + 8.0) * eps};
}


class DistanceLevels : public ::testing::TestWithParam<simd::Level> {
protected:
    const Kernels& simd_ = kernels(GetParam());

    void expect_near(float actual, const Expected& expected, const char* what, std::size_t n, std::size_t shift) {
        ASSERT_NEAR(static_cast<double>(actual), expected.value, expected.tolerance)
            << what << " of dimension " << n << ", " << shift << " floats off alignment";
    }

    void expect_all_near(const float* a, const float* b, std::size_t n, std::size_t shift) {
        expect_near(simd_.inner_product(a, b, n), inner_product_reference(a, b, n), "inner product", n, shift);
        expect_near(simd_.l2_squared(a, b, n), l2_squared_reference(a, b, n), "l2 squared", n, shift);
        expect_near(simd_.cosine(a, b, n), cosine_reference(a, b, n), "cosine", n, shift);
    }
};

std::vector<std::size_t> dimensions() {
    std::vector<std::size_t> all;
    for (std::size_t n = 0; n <= 257; ++n) {
        all.push_back(n);
    }
    for (const std::size_t n : {383, 384, 768, 1023, 1024, 1536, 4096, 65537}) {
        all.push_back(n);
    }
    return all;
}

// Memory of exactly the size that is used, so that AddressSanitizer sees a read beyond its end.
std::vector<float> random_values(std::mt19937& random, std::size_t count) {
    std::normal_distribution<float> normal(0.0F, 1.0F);
    std::vector<float> values(count);
    std::generate(values.begin(), values.end(), [&] { return normal(random); });
    return values;
}

TEST_P(DistanceLevels, AgreeWithDoublePrecisionAtEveryDimensionAndAlignment) {
    std::mt19937 random(20240);
    for (const std::size_t n : dimensions()) {
        // 64-byte lines hold 16 floats; big vectors once will do.
        const std::size_t shifts = n <= 257 ? 4 : 1;
        for (std::size_t shift = 0; shift < shifts; ++shift) {
            const auto a = random_values(random, n + shift);
            const auto b = random_values(random, n + 2 * shift);
            expect_all_near(a.data() + shift, b.data() + 2 * shift, n, shift);
        }
    }
}

TEST_P(DistanceLevels, AgreeWithTheScalarLevel) {
    std::mt19937 random(7);
    const Kernels& scalar = kernels(simd::Level::scalar);
    for (const std::size_t n : dimensions()) {
        const auto a = random_values(random, n);
        const auto b = random_values(random, n);
        const double slack = 2.0;  // both err, each within its own bound
        ASSERT_NEAR(static_cast<double>(simd_.inner_product(a.data(), b.data(), n)),
                    static_cast<double>(scalar.inner_product(a.data(), b.data(), n)),
                    slack * inner_product_reference(a.data(), b.data(), n).tolerance);
        ASSERT_NEAR(static_cast<double>(simd_.l2_squared(a.data(), b.data(), n)),
                    static_cast<double>(scalar.l2_squared(a.data(), b.data(), n)),
                    slack * l2_squared_reference(a.data(), b.data(), n).tolerance);
        ASSERT_NEAR(static_cast<double>(simd_.cosine(a.data(), b.data(), n)),
                    static_cast<double>(scalar.cosine(a.data(), b.data(), n)),
                    slack * cosine_reference(a.data(), b.data(), n).tolerance);
    }
}

// Small integers add exactly in any order: here every level must give the very same number.
TEST_P(DistanceLevels, AreExactOnSmallIntegers) {
    std::mt19937 random(99);
    std::uniform_int_distribution<int> digit(-8, 8);
    for (const std::size_t n : dimensions()) {
        std::vector<float> a(n);
        std::vector<float> b(n);
        std::int64_t product = 0;
        std::int64_t squared = 0;
        for (std::size_t i = 0; i < n; ++i) {
            const int x = digit(random);
            const int y = digit(random);
            a[i] = static_cast<float>(x);
            b[i] = static_cast<float>(y);
            product += x * y;
            squared += (x - y) * (x - y);
        }
        ASSERT_EQ(simd_.inner_product(a.data(), b.data(), n), static_cast<float>(product)) << "dimension " << n;
        ASSERT_EQ(simd_.l2_squared(a.data(), b.data(), n), static_cast<float>(squared)) << "dimension " << n;
    }
}

void expect_same_bits(float actual, float expected, const char* what, std::size_t row) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(actual), std::bit_cast<std::uint32_t>(expected))
        << what << " of row " << row << ": " << actual << " against " << expected;
}

TEST_P(DistanceLevels, GiveARowTheSameBitsAloneAndInABlock) {
    std::mt19937 random(5);
    for (const std::size_t n : {std::size_t{1}, std::size_t{7}, std::size_t{16}, std::size_t{33}, std::size_t{384}}) {
        for (std::size_t row_count = 0; row_count <= 13; ++row_count) {
            const auto query = random_values(random, n);
            const auto rows = random_values(random, n * row_count);
            std::vector<float> products(row_count);
            std::vector<float> squares(row_count);
            std::vector<float> cosines(row_count);
            simd_.inner_product_rows(query.data(), rows.data(), row_count, n, products.data());
            simd_.l2_squared_rows(query.data(), rows.data(), row_count, n, squares.data());
            simd_.cosine_rows(query.data(), rows.data(), row_count, n, cosines.data());
            for (std::size_t row = 0; row < row_count; ++row) {
                const float* values = rows.data() + row * n;
                expect_same_bits(products[row], simd_.inner_product(query.data(), values, n), "inner product", row);
                expect_same_bits(squares[row], simd_.l2_squared(query.data(), values, n), "l2 squared", row);
                expect_same_bits(cosines[row], simd_.cosine(query.data(), values, n), "cosine", row);
            }
        }
    }
}

TEST_P(DistanceLevels, PassNanOnFromEveryPosition) {
    for (const std::size_t n : {std::size_t{1}, std::size_t{9}, std::size_t{17}, std::size_t{40}}) {
        for (std::size_t i = 0; i < n; ++i) {
            std::vector<float> a(n, 1.0F);
            const std::vector<float> b(n, 2.0F);
            a[i] = nan;
            for (const Kernels::Pair pair : {simd_.inner_product, simd_.l2_squared, simd_.cosine}) {
                ASSERT_TRUE(std::isnan(pair(a.data(), b.data(), n))) << "nan at " << i << " of " << n;
                ASSERT_TRUE(std::isnan(pair(b.data(), a.data(), n))) << "nan at " << i << " of " << n;
            }
        }
    }
}

TEST_P(DistanceLevels, FollowIeeeForInfinities) {
    const std::vector<float> a{infinity, 1.0F, 1.0F};
    const std::vector<float> b{2.0F, 1.0F, 1.0F};
    EXPECT_EQ(simd_.inner_product(a.data(), b.data(), 3), infinity);
    EXPECT_EQ(simd_.l2_squared(a.data(), b.data(), 3), infinity);
    EXPECT_TRUE(std::isnan(simd_.l2_squared(a.data(), a.data(), 3)));  // inf - inf
}

TEST_P(DistanceLevels, CosineOfAZeroVectorIsZeroButNanStaysNan) {
    for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{5}, std::size_t{64}}) {
        const std::vector<float> zero(n, 0.0F);
        const std::vector<float> one(n, 1.0F);
        EXPECT_EQ(simd_.cosine(zero.data(), one.data(), n), 0.0F);
        EXPECT_EQ(simd_.cosine(one.data(), zero.data(), n), 0.0F);
        EXPECT_EQ(simd_.cosine(zero.data(), zero.data(), n), 0.0F);
    }
    const float zero = 0.0F;
    EXPECT_TRUE(std::isnan(simd_.cosine(&zero, &nan, 1)));
    EXPECT_TRUE(std::isnan(simd_.cosine(&nan, &zero, 1)));
}

TEST_P(DistanceLevels, CosineSurvivesLengthsWhoseProductOverflows) {
    const std::vector<float> big(4, 5e18F);
    EXPECT_NEAR(simd_.cosine(big.data(), big.data(), 4), 1.0F, 1e-6F);
}

INSTANTIATE_TEST_SUITE_P(EveryLevel, DistanceLevels, ::testing::ValuesIn(simd::available_levels()),
                         [](const auto& parameter) { return std::string(simd::level_name(parameter.param)); });

TEST(Distance, UsesTheActiveLevel) {
    EXPECT_EQ(kernels().inner_product, kernels(simd::active_level()).inner_product);
}

TEST(Distance, RefusesALevelThatTheMachineLacks) {
    const auto& available = simd::available_levels();
    int missing = 0;
    for (const simd::Level level :
         {simd::Level::scalar, simd::Level::neon, simd::Level::avx2, simd::Level::avx512}) {
        if (std::find(available.begin(), available.end(), level) == available.end()) {
            EXPECT_THROW(static_cast<void>(kernels(level)), InvalidArgument);
            ++missing;
        }
    }
    EXPECT_GE(missing, 1);  // no machine has both NEON and AVX
}

TEST(Distance, ChecksSizes) {
    const std::vector<float> two{1.0F, 2.0F};
    const std::vector<float> three{1.0F, 2.0F, 3.0F};
    EXPECT_THROW(static_cast<void>(inner_product(two, three)), InvalidArgument);
    EXPECT_THROW(static_cast<void>(l2_squared(two, three)), InvalidArgument);
    EXPECT_THROW(static_cast<void>(cosine(three, two)), InvalidArgument);
    std::vector<float> scores(2);
    EXPECT_THROW(inner_product_rows(two, three, scores), InvalidArgument);
    EXPECT_THROW(l2_squared_rows(two, three, scores), InvalidArgument);
    EXPECT_THROW(cosine_rows(two, three, scores), InvalidArgument);
}

TEST(Distance, ComputesWhatTheNamesSay) {
    const std::vector<float> a{3.0F, 4.0F};
    const std::vector<float> b{4.0F, 3.0F};
    EXPECT_EQ(inner_product(a, b), 24.0F);
    EXPECT_EQ(l2_squared(a, b), 2.0F);
    EXPECT_FLOAT_EQ(cosine(a, b), 24.0F / 25.0F);
    const std::vector<float> rows{3.0F, 4.0F, -4.0F, 3.0F};
    std::vector<float> scores(2);
    inner_product_rows(a, rows, scores);
    EXPECT_EQ(scores, (std::vector<float>{25.0F, 0.0F}));
    l2_squared_rows(a, rows, scores);
    EXPECT_EQ(scores, (std::vector<float>{0.0F, 50.0F}));
    cosine_rows(a, rows, scores);
    EXPECT_FLOAT_EQ(scores[0], 1.0F);
    EXPECT_FLOAT_EQ(scores[1], 0.0F);
}

}  // namespace
}  // namespace sage::distance
