// Contents of the index: adding, replacing, removing, and what is refused.
#include "sage/vdb/flat_index.hpp"

#include <cstdint>
#include <limits>
#include <map>

#include "support.hpp"

namespace sage::vdb {
namespace {

using testing::expect_refused;
using testing::vector_of;
using Floats = std::vector<float>;
using Ids = std::vector<Id>;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

TEST(FlatIndex, StartsEmpty) {
    const FlatIndex index(3, Metric::l2);
    EXPECT_EQ(index.size(), 0U);
    EXPECT_EQ(index.dimension(), 3U);
    EXPECT_EQ(index.metric(), Metric::l2);
    EXPECT_FALSE(index.contains(0));
    EXPECT_TRUE(index.ids().empty());
    EXPECT_TRUE(index.vectors().empty());
}

TEST(FlatIndex, RefusesImpossibleDimensions) {
    expect_refused([] { FlatIndex(0, Metric::l2); }, "dimension must be between 1 and 65536, got 0");
    expect_refused([] { FlatIndex(65537, Metric::l2); }, "dimension must be between 1 and 65536, got 65537");
    EXPECT_EQ(FlatIndex(65536, Metric::l2).dimension(), 65536U);
}

TEST(FlatIndex, KeepsWhatIsAddedInOrder) {
    FlatIndex index(2, Metric::inner_product);
    index.add(Ids{5, -1}, Floats{1, 2, 3, 4});
    index.add(Ids{std::numeric_limits<Id>::min(), std::numeric_limits<Id>::max()}, Floats{5, 6, 7, 8});
    EXPECT_EQ(index.size(), 4U);
    EXPECT_EQ(index.ids(), (Ids{5, -1, std::numeric_limits<Id>::min(), std::numeric_limits<Id>::max()}));
    EXPECT_EQ(index.vectors(), (Floats{1, 2, 3, 4, 5, 6, 7, 8}));
    const Rows rows = index.rows();
    EXPECT_EQ(rows.ids, index.ids());
    EXPECT_EQ(rows.vectors, index.vectors());
    EXPECT_TRUE(index.contains(-1));
    EXPECT_EQ(vector_of(index, -1), (Floats{3, 4}));
}

TEST(FlatIndex, AnEmptyBatchChangesNothing) {
    FlatIndex index(2, Metric::cosine);
    index.add({}, {});
    index.upsert({}, {});
    EXPECT_EQ(index.remove({}), 0U);
    EXPECT_EQ(index.size(), 0U);
}

// Each call must leave the index as it was.
void expect_unchanged_after(const std::function<void(FlatIndex&)>& call, const std::string& message) {
    FlatIndex index(2, Metric::cosine);
    index.add(Ids{1, 2}, Floats{1, 0, 0, 1});
    expect_refused([&] { call(index); }, message);
    EXPECT_EQ(index.ids(), (Ids{1, 2}));
    EXPECT_EQ(index.vectors(), (Floats{1, 0, 0, 1}));
    const SearchResult found = index.search(Floats{1, 0}, 5);
    EXPECT_EQ(found.ids, (Ids{1, 2}));
}

TEST(FlatIndex, RefusesBadBatchesWhole) {
    expect_unchanged_after([](FlatIndex& index) { index.add(Ids{3, 2}, Floats{1, 1, 1, 1}); },
                           "ids must be new to the index, got 2 in row 1; upsert replaces vectors");
    const char* repeated = "ids must be distinct within a batch, got 7 in rows 0 and 2";
    const Floats three(6, 1.0F);
    expect_unchanged_after([&](FlatIndex& index) { index.add(Ids{7, 8, 7}, three); }, repeated);
    expect_unchanged_after([&](FlatIndex& index) { index.upsert(Ids{7, 1, 7}, three); }, repeated);
    const char* wrong_size = "vectors must hold one row of dimension 2 per id, got 3 values for 2 ids";
    expect_unchanged_after([](FlatIndex& index) { index.add(Ids{3, 4}, Floats{1, 1, 1}); }, wrong_size);
    expect_unchanged_after([](FlatIndex& index) { index.upsert(Ids{3, 1}, Floats{1, 1, 1}); }, wrong_size);
    expect_unchanged_after([](FlatIndex& index) { index.add(Ids{3, 4}, Floats{1, 1, 1, nan}); },
                           "vectors[1][1] must be finite, got nan");
    expect_unchanged_after([](FlatIndex& index) { index.upsert(Ids{1, 4}, Floats{1, 1, -infinity, 1}); },
                           "vectors[1][0] must be finite, got -inf");
    expect_unchanged_after([](FlatIndex& index) { index.add(Ids{3}, Floats{8e18F, 0}); },
                           "vectors[0] must not be longer than 6.5e18, so that scores stay finite, got a length of "
                           "8e+18");
}

TEST(FlatIndex, GetRefusesUnknownIdsAndWrongRoom) {
    FlatIndex index(2, Metric::l2);
    index.add(Ids{1}, Floats{1, 2});
    Floats room(2);
    try {
        index.get(9, room);
        FAIL() << "9 was found";
    } catch (const NotFound& error) {
        EXPECT_STREQ(error.what(), "id must be in the index, got 9");
    }
    Floats small(1);
    expect_refused([&] { index.get(1, small); }, "the vector must have dimension 2, got 1");
}

TEST(FlatIndex, UpsertReplacesAndAdds) {
    for (const Metric metric : {Metric::cosine, Metric::inner_product, Metric::l2}) {
        FlatIndex index(2, metric);
        index.add(Ids{1, 2}, Floats{1, 0, 0, 1});
        index.upsert(Ids{3, 1}, Floats{5, 5, 0, 2});
        EXPECT_EQ(index.ids(), (Ids{1, 2, 3}));
        EXPECT_EQ(index.vectors(), (Floats{0, 2, 0, 1, 5, 5}));
    }
    // The stored length of a replaced vector must follow it.
    FlatIndex index(2, Metric::cosine);
    index.add(Ids{1}, Floats{3, 4});
    index.upsert(Ids{1}, Floats{300, 400});
    EXPECT_FLOAT_EQ(index.search(Floats{3, 4}, 1).scores.at(0), 1.0F);
}

TEST(FlatIndex, RemoveCountsAndMovesTheLastRowIntoTheGap) {
    FlatIndex index(1, Metric::l2);
    index.add(Ids{10, 11, 12, 13}, Floats{0, 1, 2, 3});
    EXPECT_EQ(index.remove(Ids{10, 99, 10}), 1U);
    EXPECT_EQ(index.ids(), (Ids{13, 11, 12}));
    EXPECT_EQ(index.vectors(), (Floats{3, 1, 2}));
    EXPECT_FALSE(index.contains(10));
    EXPECT_EQ(vector_of(index, 13), Floats{3});
    EXPECT_EQ(index.remove(Ids{11, 12, 13}), 3U);
    EXPECT_EQ(index.size(), 0U);
    index.add(Ids{10}, Floats{7});
    EXPECT_EQ(vector_of(index, 10), Floats{7});
}

TEST(FlatIndex, ReserveKeepsTheContents) {
    FlatIndex index(2, Metric::cosine);
    index.add(Ids{1}, Floats{1, 2});
    index.reserve(10'000);
    index.reserve(0);
    EXPECT_EQ(index.vectors(), (Floats{1, 2}));
    EXPECT_THROW(index.reserve(std::numeric_limits<std::size_t>::max()), std::bad_alloc);
    EXPECT_EQ(index.vectors(), (Floats{1, 2}));
}

TEST(MetricName, RoundTripsAndRefusesOthers) {
    for (const Metric metric : {Metric::cosine, Metric::inner_product, Metric::l2}) {
        EXPECT_EQ(metric_from_name(metric_name(metric)), metric);
    }
    expect_refused([] { static_cast<void>(metric_from_name("dot")); },
                   "metric must be one of cosine, inner_product, l2, got 'dot'");
    EXPECT_TRUE(higher_is_better(Metric::cosine));
    EXPECT_TRUE(higher_is_better(Metric::inner_product));
    EXPECT_FALSE(higher_is_better(Metric::l2));
}

// Random operations against a std::map.
TEST(FlatIndex, FollowsAMapThroughRandomOperations) {
    std::mt19937 random(11);
    for (const Metric metric : {Metric::cosine, Metric::l2}) {
        constexpr std::size_t dimension = 3;
        FlatIndex index(dimension, metric);
        std::map<Id, Floats> model;
        for (int turn = 0; turn < 3000; ++turn) {
            const Id id = std::uniform_int_distribution<Id>(0, 40)(random);
            const Floats vector = testing::random_values(random, dimension);
            switch (std::uniform_int_distribution<int>(0, 2)(random)) {
                case 0:
                    if (model.contains(id)) {
                        ASSERT_THROW(index.add(Ids{id}, vector), InvalidArgument);
                    } else {
                        index.add(Ids{id}, vector);
                        model[id] = vector;
                    }
                    break;
                case 1:
                    index.upsert(Ids{id}, vector);
                    model[id] = vector;
                    break;
                default: ASSERT_EQ(index.remove(Ids{id}), model.erase(id)); break;
            }
            ASSERT_EQ(index.size(), model.size());
        }
        ASSERT_FALSE(model.empty());
        for (Id id = 0; id <= 40; ++id) {
            ASSERT_EQ(index.contains(id), model.contains(id));
            if (model.contains(id)) {
                ASSERT_EQ(vector_of(index, id), model[id]);
                // Every stored length follows its row through the moves: a vector is its own best match.
                const SearchResult found = index.search(model[id], 1);
                ASSERT_EQ(found.ids.at(0), id);
            }
        }
    }
}

}  // namespace
}  // namespace sage::vdb
