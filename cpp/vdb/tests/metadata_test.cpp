#include "sage/vdb/metadata.hpp"

#include "metadata_support.hpp"

namespace sage::vdb {
namespace {

using testing::expect_error;
using testing::Model;

TEST(Metadata, FollowsAMapThroughRandomBatchesAndKeepsItsSnapshots) {
    std::mt19937 random(5);
    constexpr Slot end = 300;
    Metadata metadata;
    Model model;
    std::vector<std::pair<MetadataSnapshot, Model>> versions;
    for (int turn = 0; turn < 1'500; ++turn) {
        MetadataBatch batch = metadata.begin();
        Model changed = model;
        for (std::int64_t left = testing::draw(random, 1, 8); left > 0; --left) {
            testing::change(random, batch, changed, end);
        }
        if (testing::draw(random, 0, 7) > 0) {
            batch.commit();
            model = std::move(changed);
        }
        if (turn % 150 == 0) {
            versions.emplace_back(metadata.snapshot(), model);
        }
    }
    testing::expect_same(metadata.snapshot(), model, end);
    for (const auto& [snapshot, expected] : versions) {
        testing::expect_same(snapshot, expected, end);
        // What was saved is what is loaded, and it can be changed further.
        Metadata loaded = Metadata::load(snapshot.save());
        testing::expect_same(loaded.snapshot(), expected, end);
        EXPECT_EQ(loaded.snapshot().save(), snapshot.save());
        loaded.replace(0, {{"year", std::int64_t{1}}});
        testing::expect_record(loaded.snapshot().get(0), {{"year", std::int64_t{1}}});
    }
    MetadataBatch batch = metadata.begin();
    for (Slot slot = 0; slot < end; ++slot) {
        batch.erase(slot);
    }
    batch.commit();
    for (const FieldStats& stats : metadata.snapshot().stats()) {
        EXPECT_EQ(stats.count, 0U) << stats.name;
        EXPECT_EQ(stats.distinct, 0U) << stats.name;
    }
}

TEST(Metadata, KeepsTheTypeOfTheFirstValue) {
    Metadata metadata;
    metadata.replace(3, {{"year", std::int64_t{2020}}, {"tags", Strings{"b", "a", "b"}}, {"zero", -0.0}});
    expect_error([&] { metadata.replace(7, {{"year", 2020.5}}); },
                 "metadata field 'year' holds int values, as its first one was, got float 2020.5; a field keeps one "
                 "type, a float field takes whole numbers too: its first value decides");
    expect_error([&] { metadata.merge(3, {{"tags", std::string("a")}}); },
                 "metadata field 'tags' holds list of strings values, as its first one was, got string 'a'; a field keeps "
                 "one type");
    EXPECT_TRUE(metadata.erase(3));
    expect_error([&] { metadata.replace(3, {{"year", true}}); },
                 "metadata field 'year' holds int values, as its first one was, got bool true; a field keeps one type");
    EXPECT_FALSE(metadata.snapshot().contains(3));
    EXPECT_EQ(metadata.snapshot().type("year"), FieldType::int64);
    EXPECT_EQ(metadata.snapshot().type("month"), std::nullopt);
}

TEST(Metadata, AFloatFieldTakesWholeNumbersThatAFloatHolds) {
    constexpr std::int64_t largest = std::int64_t{1} << 53U;
    Metadata metadata;
    metadata.replace(1, {{"price", 3.5}});
    metadata.replace(2, {{"price", std::int64_t{3}}});
    metadata.merge(3, {{"price", -largest}});
    expect_error([&] { metadata.replace(4, {{"price", largest + 1}}); },
                 "metadata field 'price' holds float values, as its first one was, got int 9007199254740993; a field keeps "
                 "one type");
    EXPECT_FALSE(metadata.snapshot().contains(4));
    EXPECT_EQ(metadata.snapshot().get(2, "price"), Value{3.0});
    EXPECT_EQ(metadata.snapshot().get(3, "price"), Value{-9007199254740992.0});
    EXPECT_EQ(metadata.snapshot().stats()[0].count, 3U);
    metadata.replace(2, {{"price", 3.0}});  // the same value in its own type
    EXPECT_EQ(metadata.snapshot().stats()[0].distinct, 3U);
}

TEST(Metadata, RefusesWhatCannotBeKept) {
    Metadata metadata;
    expect_error([&] { metadata.replace(0, {{"x", std::nan("")}}); },
                 "metadata field 'x' must not be NaN, which equals nothing; leave it out");
    expect_error([&] { metadata.replace(0, {{"", true}}); },
                 "a metadata field's name must have 1 to 255 bytes, got 0: ''");
    expect_error([&] { metadata.replace(0, {{"x", true}, {"x", true}}); },
                 "a record must hold each field once, got 'x' twice");
    expect_error([&] { metadata.replace(0x7FFF'FFFF, {}); }, "slot must be at most 2147483646, got 2147483647");
    EXPECT_THROW(metadata.replace(0, {{"x", std::string(Metadata::string_bytes_max + 1, 'x')}}), InvalidArgument);
    EXPECT_THROW(metadata.replace(0, {{"x", Strings(Metadata::list_items_max + 1)}}), InvalidArgument);
    EXPECT_THROW(metadata.replace(0, {{"x", Strings(17, std::string(Metadata::string_bytes_max, 'x'))}}), InvalidArgument);
    Record many;
    for (std::size_t i = 0; i <= Metadata::fields_max; ++i) {
        many.emplace_back(std::string("f").append(std::to_string(i)), true);
    }
    EXPECT_THROW(metadata.replace(0, many), InvalidArgument);
    many.pop_back();
    metadata.replace(0, many);
    EXPECT_EQ(metadata.snapshot().get(0), many);
}

TEST(Metadata, HasOneBatchAtATime) {
    Metadata metadata;
    {
        MetadataBatch open = metadata.begin();
        open.replace(1, {{"x", true}});
        EXPECT_EQ(open.get(1), (Record{{"x", true}}));
        expect_error([&] { metadata.erase(1); },
                     "metadata has one writer at a time, and a batch is open already; commit or drop it first");
        EXPECT_EQ(metadata.snapshot().size(), 0U);
    }
    MetadataBatch next = metadata.begin();
    next.replace(2, {});
    next.commit();
    expect_error([&] { next.replace(2, {}); }, "a metadata batch ends with its commit; begin another one");
    expect_error([&] { next.commit(); }, "a metadata batch ends with its commit; begin another one");
    EXPECT_EQ(metadata.snapshot().get(1), Record{});
    EXPECT_TRUE(metadata.snapshot().contains(2));
    EXPECT_EQ(metadata.snapshot().type("x"), std::nullopt);
}

TEST(Metadata, NamesWhatIsWrongWithABuffer) {
    expect_error<UnsupportedFormat>([] { static_cast<void>(Metadata::load({})); },
                                    "metadata: these bytes do not begin as metadata do (at byte 0 of 0)");
    Metadata metadata;
    metadata.replace(9, {{"x", std::string("text")}});
    std::vector<std::byte> saved = metadata.snapshot().save();
    for (std::size_t size = 12; size < saved.size(); ++size) {
        EXPECT_THROW(static_cast<void>(Metadata::load(std::span(saved).first(size))), Corruption) << size;
    }
    saved.push_back(std::byte{0});
    EXPECT_THROW(static_cast<void>(Metadata::load(saved)), Corruption);
    saved.pop_back();
    saved[8] = std::byte{2};
    EXPECT_THROW(static_cast<void>(Metadata::load(saved)), UnsupportedFormat);
}

TEST(Metadata, CountsItsMemory) {
    Metadata metadata;
    MetadataBatch batch = metadata.begin();
    for (Slot slot = 0; slot < 20'000; ++slot) {
        batch.replace(slot, {{"lang", std::string(slot % 2 == 0 ? "en" : "de")}, {"n", std::int64_t{slot}}});
    }
    batch.commit();
    const auto stats = metadata.snapshot().stats();
    ASSERT_EQ(stats.size(), 2U);
    EXPECT_EQ(stats[0].distinct, 2U);
    EXPECT_EQ(stats[1].distinct, 20'000U);
    EXPECT_EQ(stats[0].count, 20'000U);
    // A bitmap of 65,536 slots for each of both values and for those present, and not much more.
    EXPECT_LT(stats[0].index_bytes, 4U * 8'192U);
    EXPECT_LT(stats[1].index_bytes, 20'000U * 30U);
}

}  // namespace
}  // namespace sage::vdb
