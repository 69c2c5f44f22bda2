// Every SIMD level against sums of integers, against sums in double precision and against the scalar level.
#include "sage/common/codes.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "sage/common/error.hpp"

namespace sage::distance {
namespace {

class CodeLevels : public ::testing::TestWithParam<simd::Level> {
protected:
    const CodeKernels& simd_ = code_kernels(GetParam());
    const CodeKernels& scalar_ = code_kernels(simd::Level::scalar);
};

std::vector<std::size_t> dimensions() {
    std::vector<std::size_t> all;
    for (std::size_t n = 0; n <= 260; ++n) {
        all.push_back(n);
    }
    for (const std::size_t n : {383, 768, 1023, 1024, 4096, 65536}) {
        all.push_back(n);
    }
    return all;
}

template <class T>
std::vector<const T*> pointers(const std::vector<std::vector<T>>& rows) {
    std::vector<const T*> all;
    for (const auto& row : rows) {
        all.push_back(row.data());
    }
    return all;
}

// Rows of exactly the size that is used, so that AddressSanitizer sees a read beyond their end.
template <class T>
std::vector<std::vector<T>> random_rows(std::mt19937& random, std::size_t count, std::size_t size, int low, int high) {
    std::uniform_int_distribution<int> value(low, high);
    std::vector<std::vector<T>> rows(count, std::vector<T>(size));
    for (auto& row : rows) {
        std::generate(row.begin(), row.end(), [&] { return static_cast<T>(value(random)); });
    }
    return rows;
}

TEST_P(CodeLevels, MultiplyBytesExactly) {
    std::mt19937 random(1);
    for (const std::size_t n : dimensions()) {
        const std::size_t row_count = n <= 260 ? n % 7 : 5;
        const auto query = random_rows<std::int8_t>(random, 1, n, -128, 127).front();
        const auto rows = random_rows<std::uint8_t>(random, row_count, n, 0, 255);
        std::vector<std::int32_t> products(row_count);
        simd_.byte_product_rows(query.data(), pointers(rows).data(), row_count, n, products.data());
        for (std::size_t row = 0; row < row_count; ++row) {
            std::int64_t sum = 0;
            for (std::size_t i = 0; i < n; ++i) {
                sum += std::int64_t{query[i]} * rows[row][i];
            }
            ASSERT_EQ(products[row], sum) << "dimension " << n << ", row " << row;
        }
    }
}

TEST_P(CodeLevels, DoNotSaturateAtTheExtremes) {
    const std::size_t n = code_dimension_max;
    for (const std::int8_t value : {std::int8_t{-128}, std::int8_t{127}}) {
        const std::vector<std::int8_t> query(n, value);
        const std::vector<std::uint8_t> row(n, 255);
        const std::uint8_t* rows = row.data();
        std::int32_t product = 0;
        simd_.byte_product_rows(query.data(), &rows, 1, n, &product);
        EXPECT_EQ(product, std::int64_t{value} * 255 * static_cast<std::int64_t>(n));
    }
}

TEST_P(CodeLevels, MultiplyNibblesExactly) {
    std::mt19937 random(2);
    for (const std::size_t n : dimensions()) {
        const std::size_t row_count = n <= 260 ? n % 7 : 5;
        const auto query = random_rows<std::int8_t>(random, 1, n, -128, 127).front();
        const auto values = random_rows<std::uint8_t>(random, row_count, n, 0, 15);
        std::vector<std::vector<std::uint8_t>> rows(row_count, std::vector<std::uint8_t>(nibble_bytes(n)));
        for (std::size_t row = 0; row < row_count; ++row) {
            pack_nibbles(values[row], rows[row]);
        }
        std::vector<std::int32_t> products(row_count);
        simd_.nibble_product_rows(query.data(), pointers(rows).data(), row_count, n, products.data());
        for (std::size_t row = 0; row < row_count; ++row) {
            std::int64_t sum = 0;
            for (std::size_t i = 0; i < n; ++i) {
                sum += std::int64_t{query[i]} * values[row][i];
            }
            ASSERT_EQ(products[row], sum) << "dimension " << n << ", row " << row;
        }
    }
}

TEST(Codes, PackNibblesRefusesWhatDoesNotFit) {
    const std::vector<std::uint8_t> values{1, 16, 3};
    std::vector<std::uint8_t> packed(2);
    EXPECT_THROW(pack_nibbles(values, packed), InvalidArgument);
    packed.resize(3);
    EXPECT_THROW(pack_nibbles(std::vector<std::uint8_t>{1, 2, 3}, packed), InvalidArgument);
}

// Every one of the 65,536 patterns, and what rounds between them.
TEST_P(CodeLevels, ConvertEveryHalf) {
    std::vector<std::uint16_t> all(65536);
    for (std::size_t i = 0; i < all.size(); ++i) {
        all[i] = static_cast<std::uint16_t>(i);
    }
    std::vector<float> wide(all.size());
    std::vector<std::uint16_t> back(all.size());
    for (const bool brain : {true, false}) {
        (brain ? simd_.from_bfloat16 : simd_.from_float16)(all.data(), all.size(), wide.data());
        (brain ? simd_.to_bfloat16 : simd_.to_float16)(wide.data(), wide.size(), back.data());
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (std::isnan(wide[i])) {
                std::vector<float> again(1);
                (brain ? scalar_.from_bfloat16 : scalar_.from_float16)(&back[i], 1, again.data());
                ASSERT_TRUE(std::isnan(again[0])) << i;
            } else {
                ASSERT_EQ(back[i], all[i]) << wide[i];
            }
        }
    }
}

TEST_P(CodeLevels, RoundHalvesAsTheScalarLevel) {
    std::mt19937 random(3);
    std::uniform_int_distribution<std::uint32_t> bits;
    for (const std::size_t count : {std::size_t{1}, std::size_t{15}, std::size_t{17}, std::size_t{100000}}) {
        std::vector<float> values(count);
        std::generate(values.begin(), values.end(), [&] { return std::bit_cast<float>(bits(random)); });
        if (count > 10000) {  // the range of float16 is a small part of all patterns
            std::normal_distribution<float> normal(0.0F, 1.0F);
            std::uniform_int_distribution<int> exponent(-30, 18);
            std::generate(values.begin(), values.end(), [&] { return std::ldexp(normal(random), exponent(random)); });
        }
        std::vector<std::uint16_t> actual(count);
        std::vector<std::uint16_t> expected(count);
        for (const bool brain : {true, false}) {
            (brain ? simd_.to_bfloat16 : simd_.to_float16)(values.data(), count, actual.data());
            (brain ? scalar_.to_bfloat16 : scalar_.to_float16)(values.data(), count, expected.data());
            for (std::size_t i = 0; i < count; ++i) {
                if (!std::isnan(values[i])) {
                    ASSERT_EQ(actual[i], expected[i]) << values[i];
                }
            }
        }
    }
}

double reference(const std::vector<float>& a, const std::vector<float>& b, bool squared, double& tolerance) {
    double sum = 0.0;
    double magnitude = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double x = static_cast<double>(a[i]);
        const double y = static_cast<double>(b[i]);
        const double term = squared ? (x - y) * (x - y) : x * y;
        sum += term;
        magnitude += std::abs(term);
    }
    tolerance = (static_cast<double>(a.size()) + 4.0) * 2.0 *
                static_cast<double>(std::numeric_limits<float>::epsilon()) * magnitude;
    return sum;
}

TEST_P(CodeLevels, ScoreRowsOfFloatsAndHalves) {
    std::mt19937 random(4);
    std::normal_distribution<float> normal;
    for (const std::size_t n : dimensions()) {
        if (n > 5000) {
            continue;
        }
        std::vector<float> query(n);
        std::generate(query.begin(), query.end(), [&] { return normal(random); });
        std::vector<std::vector<float>> rows(3, std::vector<float>(n));
        std::vector<std::vector<std::uint16_t>> brain(3, std::vector<std::uint16_t>(n));
        std::vector<std::vector<std::uint16_t>> half(3, std::vector<std::uint16_t>(n));
        for (std::size_t row = 0; row < 3; ++row) {
            std::generate(rows[row].begin(), rows[row].end(), [&] { return normal(random); });
            scalar_.to_bfloat16(rows[row].data(), n, brain[row].data());
            scalar_.to_float16(rows[row].data(), n, half[row].data());
        }
        for (const bool squared : {false, true}) {
            std::vector<float> scores(3);
            double tolerance = 0.0;
            (squared ? simd_.float_l2_squared_rows : simd_.float_product_rows)(query.data(), pointers(rows).data(), 3,
                                                                                n, scores.data());
            for (std::size_t row = 0; row < 3; ++row) {
                const double expected = reference(query, rows[row], squared, tolerance);
                ASSERT_NEAR(static_cast<double>(scores[row]), expected, tolerance) << "float, dimension " << n;
            }
            (squared ? simd_.bfloat16_l2_squared_rows : simd_.bfloat16_product_rows)(
                query.data(), pointers(brain).data(), 3, n, scores.data());
            for (std::size_t row = 0; row < 3; ++row) {
                std::vector<float> wide(n);
                scalar_.from_bfloat16(brain[row].data(), n, wide.data());
                const double expected = reference(query, wide, squared, tolerance);
                ASSERT_NEAR(static_cast<double>(scores[row]), expected, tolerance) << "bfloat16, dimension " << n;
            }
            (squared ? simd_.float16_l2_squared_rows : simd_.float16_product_rows)(
                query.data(), pointers(half).data(), 3, n, scores.data());
            for (std::size_t row = 0; row < 3; ++row) {
                std::vector<float> wide(n);
                scalar_.from_float16(half[row].data(), n, wide.data());
                const double expected = reference(query, wide, squared, tolerance);
                ASSERT_NEAR(static_cast<double>(scores[row]), expected, tolerance) << "float16, dimension " << n;
            }
        }
    }
}

TEST_P(CodeLevels, PassNanOn) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> query{1.0F, nan, 2.0F};
    const std::vector<std::uint16_t> ones(3, 0x3F80);
    const std::uint16_t* rows = ones.data();
    float score = 0.0F;
    simd_.bfloat16_product_rows(query.data(), &rows, 1, 3, &score);
    EXPECT_TRUE(std::isnan(score));
    simd_.float16_l2_squared_rows(query.data(), &rows, 1, 3, &score);
    EXPECT_TRUE(std::isnan(score));
}

INSTANTIATE_TEST_SUITE_P(EveryLevel, CodeLevels, ::testing::ValuesIn(simd::available_levels()),
                         [](const auto& parameter) { return std::string(simd::level_name(parameter.param)); });

}  // namespace
}  // namespace sage::distance
