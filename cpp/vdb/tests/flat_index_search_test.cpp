// Searches against a sort of all scores in double precision.
#include <cmath>
#include <limits>
#include <ostream>
#include <sstream>

#include "support.hpp"

namespace sage::vdb {
namespace {

using testing::consecutive_ids;
using testing::expect_refused;
using testing::random_values;
using Floats = std::vector<float>;
using Ids = std::vector<Id>;

double reference_score(Metric metric, const float* query, const float* vector, std::size_t dimension) {
    double product = 0.0;
    double squares = 0.0;
    double query_square = 0.0;
    double vector_square = 0.0;
    for (std::size_t i = 0; i < dimension; ++i) {
        const auto a = static_cast<double>(query[i]);
        const auto b = static_cast<double>(vector[i]);
        product += a * b;
        squares += (a - b) * (a - b);
        query_square += a * a;
        vector_square += b * b;
    }
    switch (metric) {
        case Metric::l2: return squares;
        case Metric::inner_product: return product;
        case Metric::cosine: break;
    }
    const double lengths = std::sqrt(query_square) * std::sqrt(vector_square);
    return lengths == 0.0 ? 0.0 : product / lengths;
}

struct Shape {
    Metric metric;
    std::size_t dimension;
    std::size_t size;

    friend std::ostream& operator<<(std::ostream& out, const Shape& shape) {
        return out << metric_name(shape.metric) << "_" << shape.dimension << "x" << shape.size;
    }
};

class FlatIndexSearch : public ::testing::TestWithParam<Shape> {};

// Random real vectors have no ties worth the name, but two scores may be closer than a float can tell: the score found
// at each rank must be the reference's score at that rank, and belong to the id it comes with.
TEST_P(FlatIndexSearch, FindsTheBestByDoublePrecision) {
    const auto [metric, dimension, size] = GetParam();
    std::mt19937 random(static_cast<unsigned>(dimension * 1000 + size));
    FlatIndex index(dimension, metric);
    const Ids ids = consecutive_ids(size, 1000);
    const Floats vectors = random_values(random, size * dimension);
    index.add(ids, vectors);
    constexpr std::size_t query_count = 5;
    const Floats queries = random_values(random, query_count * dimension);
    for (const std::size_t k : {std::size_t{1}, std::size_t{10}, size, size + 7}) {
        const SearchResult found = index.search(queries, k);
        const std::size_t per_query = std::min(k, size);
        ASSERT_EQ(found.query_count, query_count);
        ASSERT_EQ(found.per_query, per_query);
        ASSERT_EQ(found.ids.size(), query_count * per_query);
        ASSERT_EQ(found.scores.size(), query_count * per_query);
        for (std::size_t q = 0; q < query_count; ++q) {
            const float* query = queries.data() + q * dimension;
            std::vector<double> expected(size);
            for (std::size_t row = 0; row < size; ++row) {
                expected[row] = reference_score(metric, query, vectors.data() + row * dimension, dimension);
            }
            std::vector<double> ranked = expected;
            std::sort(ranked.begin(), ranked.end());
            if (higher_is_better(metric)) {
                std::reverse(ranked.begin(), ranked.end());
            }
            for (std::size_t rank = 0; rank < per_query; ++rank) {
                const std::size_t at = q * per_query + rank;
                const double tolerance = 1e-5 * std::max(1.0, static_cast<double>(dimension) / 8.0);
                ASSERT_NEAR(static_cast<double>(found.scores[at]), ranked[rank], tolerance);
                ASSERT_NEAR(static_cast<double>(found.scores[at]),
                            expected[static_cast<std::size_t>(found.ids[at] - 1000)], tolerance);
            }
            Ids distinct(found.ids.begin() + static_cast<std::ptrdiff_t>(q * per_query),
                         found.ids.begin() + static_cast<std::ptrdiff_t>((q + 1) * per_query));
            std::sort(distinct.begin(), distinct.end());
            ASSERT_EQ(std::adjacent_find(distinct.begin(), distinct.end()), distinct.end());
        }
    }
}

std::vector<Shape> shapes() {
    std::vector<Shape> all;
    for (const Metric metric : {Metric::cosine, Metric::inner_product, Metric::l2}) {
        // 2,000 x 100 spans several tiles; dimension 5,000 makes the smallest tile.
        for (const auto& [dimension, size] : std::vector<std::pair<std::size_t, std::size_t>>{
                 {1, 10}, {3, 1}, {17, 100}, {100, 2000}, {5000, 40}}) {
            all.push_back({metric, dimension, size});
        }
    }
    return all;
}

INSTANTIATE_TEST_SUITE_P(Shapes, FlatIndexSearch, ::testing::ValuesIn(shapes()), [](const auto& parameter) {
    std::ostringstream name;
    name << parameter.param;
    return name.str();
});

TEST(FlatIndexSearchOf, RefusesBadQueries) {
    FlatIndex index(2, Metric::cosine);
    index.add(Ids{1}, Floats{1, 0});
    expect_refused([&] { static_cast<void>(index.search(Floats{1, 0}, 0)); }, "k must be >= 1, got 0");
    expect_refused([&] { static_cast<void>(index.search(Floats{1, 0, 1}, 1)); },
                   "queries must hold rows of dimension 2, got 3 values");
    expect_refused([&] { static_cast<void>(index.search(Floats{1, 0, std::nanf(""), 1}, 1)); },
                   "queries[1][0] must be finite, got nan");
    expect_refused(
        [&] { static_cast<void>(index.search(Floats{std::numeric_limits<float>::infinity(), 1}, 1)); },
        "queries[0][0] must be finite, got inf");
}

TEST(FlatIndexSearchOf, OfAnEmptyIndexFindsNothing) {
    const FlatIndex index(2, Metric::l2);
    const SearchResult found = index.search(Floats{1, 2, 3, 4}, 3);
    EXPECT_EQ(found.query_count, 2U);
    EXPECT_EQ(found.per_query, 0U);
    EXPECT_TRUE(found.ids.empty());
}

TEST(FlatIndexSearchOf, WithoutQueriesFindsNothing) {
    FlatIndex index(2, Metric::l2);
    index.add(Ids{1}, Floats{1, 2});
    const SearchResult found = index.search({}, 3);
    EXPECT_EQ(found.query_count, 0U);
    EXPECT_EQ(found.per_query, 1U);
    EXPECT_TRUE(found.scores.empty());
}

TEST(FlatIndexSearchOf, OrdersEqualScoresByIdWhateverTheRowOrder) {
    for (const Metric metric : {Metric::cosine, Metric::inner_product, Metric::l2}) {
        std::mt19937 random(3);
        Ids ids = consecutive_ids(500, -250);
        std::shuffle(ids.begin(), ids.end(), random);
        FlatIndex index(8, metric);
        index.add(ids, Floats(500 * 8, 1.0F));
        const SearchResult found = index.search(Floats(8, 2.0F), 7);
        EXPECT_EQ(found.ids, consecutive_ids(7, -250)) << metric_name(metric);
    }
}

TEST(FlatIndexSearchOf, GivesAQueryTheSameAnswerAloneAndInABatch) {
    std::mt19937 random(4);
    for (const Metric metric : {Metric::cosine, Metric::inner_product, Metric::l2}) {
        FlatIndex index(33, metric);
        index.add(consecutive_ids(3000), random_values(random, 3000 * 33));
        const Floats queries = random_values(random, 6 * 33);
        const SearchResult together = index.search(queries, 20);
        for (std::size_t q = 0; q < 6; ++q) {
            const SearchResult alone = index.search(std::span(queries).subspan(q * 33, 33), 20);
            for (std::size_t rank = 0; rank < 20; ++rank) {
                ASSERT_EQ(together.ids[q * 20 + rank], alone.ids[rank]);
                ASSERT_EQ(together.scores[q * 20 + rank], alone.scores[rank]);
            }
        }
    }
}

TEST(FlatIndexSearchOf, CosineOfZeroVectorsIsZero) {
    FlatIndex index(2, Metric::cosine);
    index.add(Ids{1, 2, 3, 4}, Floats{1, 0, 0, 0, -1, 0, 1e-31F, 0});
    const SearchResult found = index.search(Floats{1, 0, 0, 0}, 4);
    EXPECT_EQ(Ids(found.ids.begin(), found.ids.begin() + 4), (Ids{1, 2, 4, 3}));
    EXPECT_EQ(Floats(found.scores.begin(), found.scores.begin() + 4), (Floats{1, 0, 0, -1}));
    EXPECT_EQ(Ids(found.ids.begin() + 4, found.ids.end()), (Ids{1, 2, 3, 4}));
    EXPECT_EQ(Floats(found.scores.begin() + 4, found.scores.end()), (Floats{0, 0, 0, 0}));
}

TEST(FlatIndexSearchOf, CosineDoesNotDependOnLength) {
    FlatIndex index(2, Metric::cosine);
    index.add(Ids{1, 2, 3}, Floats{3, 4, 3e-29F, 4e-29F, 3e18F, 4e18F});
    for (const float scale : {1.0F, 1e-29F, 1e18F}) {
        const SearchResult found = index.search(Floats{3 * scale, 4 * scale}, 3);
        for (const float score : found.scores) {
            EXPECT_NEAR(score, 1.0F, 1e-6F) << "scale " << scale;
            EXPECT_LE(score, 1.0F);
        }
    }
}

TEST(FlatIndexSearchOf, ScoresAtTheLongestLengthsAreFinite) {
    for (const Metric metric : {Metric::cosine, Metric::inner_product, Metric::l2}) {
        FlatIndex index(2, metric);
        const float side = 4.5e18F;  // a length of 6.4e18
        index.add(Ids{1, 2}, Floats{side, side, -side, -side});
        const SearchResult found = index.search(Floats{side, side}, 2);
        EXPECT_EQ(found.ids, (Ids{1, 2}));
        EXPECT_TRUE(std::isfinite(found.scores.at(0)));
        EXPECT_TRUE(std::isfinite(found.scores.at(1)));
    }
}

}  // namespace
}  // namespace sage::vdb
