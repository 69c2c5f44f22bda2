// Panel kernels of every level against plain loops.
#include "sage/common/panel.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "sage/common/error.hpp"

namespace sage::distance {
namespace {

std::vector<float> random_values(std::mt19937& random, std::size_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float& value : values) {
        value = normal(random);
    }
    return values;
}

TEST(Panel, products_of_every_level_are_within_the_bound) {
    std::mt19937 random(1);
    for (const simd::Level level : simd::available_levels()) {
        const PanelKernels& kernels = panel_kernels(level);
        for (const std::size_t dimension : {1U, 3U, 16U, 17U, 128U, 333U}) {
            for (const std::size_t count : {1U, 5U, 63U, 64U}) {
                const std::size_t queries = 1 + random() % 14;
                const auto rows = random_values(random, count * dimension);
                const auto scales = random_values(random, count);
                const auto asked = random_values(random, queries * dimension);
                std::vector<const float*> pointers;
                for (std::size_t row = 0; row < count; ++row) {
                    pointers.push_back(rows.data() + row * dimension);
                }
                std::vector<float> panel(dimension * panel_rows, -1.0F);
                std::vector<float> products(queries * panel_rows, -1.0F);
                kernels.pack(pointers.data(), scales.data(), count, dimension, panel.data());
                kernels.products(panel.data(), dimension, asked.data(), queries, products.data());
                for (std::size_t q = 0; q < queries; ++q) {
                    for (std::size_t row = 0; row < panel_rows; ++row) {
                        double expected = 0.0;
                        double sizes = 0.0;
                        for (std::size_t i = 0; row < count && i < dimension; ++i) {
                            const double term = static_cast<double>(rows[row * dimension + i] * scales[row]) *
                                                static_cast<double>(asked[q * dimension + i]);
                            expected += term;
                            sizes += std::fabs(term);
                        }
                        const double bound = static_cast<double>(dimension + 1) * sizes / 16777216.0;
                        ASSERT_NEAR(products[q * panel_rows + row], expected, bound)
                            << simd::level_name(level) << " dimension " << dimension << " row " << row;
                    }
                }
            }
        }
    }
}

TEST(Panel, select_gives_costs_and_the_mask_of_those_within_the_limit) {
    std::mt19937 random(2);
    const auto products = random_values(random, panel_rows);
    auto addends = random_values(random, panel_rows);
    addends[7] = std::numeric_limits<float>::infinity();
    for (const simd::Level level : simd::available_levels()) {
        std::vector<float> costs(panel_rows);
        const std::uint64_t mask =
            panel_kernels(level).select(products.data(), addends.data(), -2.0F, 0.25F, costs.data());
        for (std::size_t row = 0; row < panel_rows; ++row) {
            if (row != 7) {
                EXPECT_NEAR(costs[row], addends[row] - 2.0F * products[row], 1e-5F);
            }
            EXPECT_EQ((mask >> row & 1U) != 0, costs[row] <= 0.25F);
        }
    }
}

TEST(Panel, bit_products_are_exact_at_every_level) {
    std::mt19937 random(3);
    for (const std::size_t words : {1U, 2U, 3U, 16U}) {
        std::vector<std::int8_t> query(words * 64);
        std::vector<std::vector<std::uint8_t>> rows(5, std::vector<std::uint8_t>(words * 8));
        for (std::int8_t& value : query) {
            value = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
        }
        std::vector<const std::uint8_t*> pointers;
        std::vector<std::int32_t> expected;
        for (auto& row : rows) {
            std::int32_t sum = 0;
            for (std::size_t i = 0; i < row.size(); ++i) {
                row[i] = static_cast<std::uint8_t>(random());
                for (std::size_t bit = 0; bit < 8; ++bit) {
                    sum += (row[i] >> bit & 1) != 0 ? query[i * 8 + bit] : 0;
                }
            }
            expected.push_back(sum);
            pointers.push_back(row.data());
        }
        for (const simd::Level level : simd::available_levels()) {
            std::vector<std::int32_t> products(rows.size());
            panel_kernels(level).bit_product_rows(query.data(), pointers.data(), rows.size(), words, products.data());
            EXPECT_EQ(products, expected) << simd::level_name(level);
        }
    }
}

TEST(Panel, streamed_rows_score_as_one_row_alone_and_as_plain_loops) {
    std::mt19937 random(4);
    for (const simd::Level level : simd::available_levels()) {
        const PanelKernels& kernels = panel_kernels(level);
        for (const std::size_t dimension : {1U, 8U, 15U, 16U, 31U, 33U, 128U, 300U}) {
            const auto query = random_values(random, dimension);
            const auto rows = random_values(random, 7 * dimension);
            std::vector<const float*> pointers;
            for (std::size_t row = 0; row < 7; ++row) {
                pointers.push_back(rows.data() + row * dimension);
            }
            for (const bool squared : {false, true}) {
                const auto kernel = squared ? kernels.l2_squared_rows : kernels.product_rows;
                std::vector<float> scores(7);
                kernel(query.data(), pointers.data(), 7, dimension, scores.data());
                for (std::size_t row = 0; row < 7; ++row) {
                    float alone = 0.0F;
                    kernel(query.data(), &pointers[row], 1, dimension, &alone);
                    EXPECT_EQ(alone, scores[row]);
                    double expected = 0.0;
                    for (std::size_t i = 0; i < dimension; ++i) {
                        const double a = static_cast<double>(query[i]);
                        const double b = static_cast<double>(pointers[row][i]);
                        expected += squared ? (a - b) * (a - b) : a * b;
                    }
                    EXPECT_NEAR(scores[row], expected, 1e-6 * static_cast<double>(dimension + 8));
                }
            }
        }
    }
}

TEST(Panel, a_level_that_is_not_there_is_refused) {
    for (const simd::Level level : {simd::Level::neon, simd::Level::avx512}) {
        const auto& levels = simd::available_levels();
        if (std::find(levels.begin(), levels.end(), level) == levels.end()) {
            EXPECT_THROW(static_cast<void>(panel_kernels(level)), InvalidArgument);
        }
    }
}

}  // namespace
}  // namespace sage::distance
