#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "collection_support.hpp"

namespace sage::vdb::testing {
namespace {

Collection three(Database& database, Metric metric = Metric::l2) {
    Collection collection = database.create_collection("three", options_of(2, metric));
    add_rows(collection, {10, 11, 12}, {0, 0, 1, 0, 0, 3});
    return collection;
}

TEST(Collection, AnswersBestFirst) {
    Database database = Database::in_memory(quiet());
    const Collection collection = three(database);
    const std::vector<float> query{0.9F, 0};
    const SearchHits hits = collection.search({.queries = query, .k = 2});
    EXPECT_EQ(numbers_of(hits), (Numbers{11, 10}));
    EXPECT_NEAR(hits.scores[0], 0.01F, 1e-6F);
    EXPECT_NEAR(hits.scores[1], 0.81F, 1e-6F);
}

TEST(Collection, GivesBackWhatWasPutIn) {
    Database database = Database::in_memory(quiet());
    Collection collection = database.create_collection("docs", options_of(2, Metric::cosine));
    const Texts ids{"a", "b"};
    const std::vector<float> rows{3, 4, 0, 0};
    const std::vector<Record> metadata{{{"year", std::int64_t{2020}}, {"tags", Strings{"x", "y"}}}, {}};
    const std::vector<std::optional<std::string>> texts{"a small text", std::nullopt};
    collection.add({.ids = span_of(ids), .vectors = rows, .metadata = metadata, .texts = texts});
    const Texts asked{"b", "nobody", "a"};
    const DocumentList list = collection.get(span_of(asked), {.vectors = true, .metadata = true, .text = true});
    EXPECT_EQ(std::get<Texts>(list.ids), (Texts{"b", "a"}));
    EXPECT_EQ(list.vector_counts, (std::vector<std::uint32_t>{1, 1}));
    ASSERT_EQ(list.vectors.size(), 4U);
    EXPECT_EQ(list.vectors[0], 0);
    EXPECT_NEAR(list.vectors[2], 3, 1e-6);
    EXPECT_NEAR(list.vectors[3], 4, 1e-6);
    EXPECT_EQ(list.metadata[1], metadata[0]);
    EXPECT_EQ(list.texts, (std::vector<std::optional<std::string>>{std::nullopt, "a small text"}));
}

TEST(Collection, WritesAreSeenAtOnce) {
    Database database = Database::in_memory(quiet());
    Collection collection = three(database);
    const std::vector<float> row{0.9F, 0};
    collection.upsert({.ids = span_of(Numbers{12}), .vectors = row});
    EXPECT_EQ(numbers_of(collection.search({.queries = row, .k = 1})), Numbers{12});
    EXPECT_EQ(collection.remove(span_of(Numbers{12, 99})), 1U);
    EXPECT_EQ(numbers_of(collection.search({.queries = row, .k = 9})), (Numbers{11, 10}));
    EXPECT_EQ(collection.count(), 2U);
    EXPECT_FALSE(collection.contains(std::int64_t{12}));
}

TEST(Collection, UpdateChangesOnlyWhatIsGiven) {
    Database database = Database::in_memory(quiet());
    Collection collection = database.create_collection("docs", options_of(1, Metric::l2));
    const Numbers ids{1};
    const std::vector<float> row{5};
    const std::vector<Record> metadata{{{"a", std::int64_t{1}}, {"b", true}}};
    const std::vector<std::optional<std::string>> texts{"old words"};
    collection.add({.ids = span_of(ids), .vectors = row, .metadata = metadata, .texts = texts});
    const std::vector<Record> change{{{"a", std::int64_t{2}}}};
    collection.update({.ids = span_of(ids), .metadata = change});
    const std::vector<float> moved{7};
    collection.update({.ids = span_of(ids), .vectors = moved});
    const DocumentList list = collection.get(span_of(ids), {true, true, true});
    EXPECT_EQ(list.vectors, moved);
    EXPECT_EQ(list.metadata[0], (Record{{"a", std::int64_t{2}}, {"b", true}}));
    EXPECT_EQ(list.texts[0], "old words");
    EXPECT_EQ(numbers_of(collection.search({.texts = Texts{"words"}})), ids);
    const std::vector<std::optional<std::string>> other{"new ones"};
    collection.update({.ids = span_of(ids), .texts = other});
    EXPECT_TRUE(numbers_of(collection.search({.texts = Texts{"words"}})).empty());
    expect_failure<NotFound>([&] { collection.update({.ids = span_of(Numbers{2}), .metadata = change}); },
                             "there is no document 2 to update");
}

TEST(Collection, RefusesBadInputAndChangesNothing) {
    Database database = Database::in_memory(quiet());
    Collection collection = three(database);
    const std::vector<float> one{1, 1};
    const std::vector<float> two{1, 1, 2, 2};
    const auto refused = [](const std::function<void()>& call, const char* part) {
        expect_failure<InvalidArgument>(call, part);
    };
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float infinity = std::numeric_limits<float>::infinity();
    refused([&] { add_rows(collection, {1, 2}, {0, 0, 0, nan}); }, "vectors[1][1] must be finite, got nan");
    refused([&] { add_rows(collection, {1}, {-infinity, 0}); }, "vectors[0][0] must be finite, got -inf");
    refused([&] { add_rows(collection, {1}, {1e19F, 0}); }, "must not be longer than 6.5e18");
    refused([&] { add_rows(collection, {1}, {1, 2, 3}); }, "1 rows of dimension 2");
    refused([&] { add_rows(collection, {1, 1}, two); }, "ids must be distinct within a call, got 1 twice");
    refused([&] { add_rows(collection, {1, 12}, two); }, "id 12 is in the collection already");
    refused([&] { collection.add({.ids = span_of(Texts{"x"}), .vectors = one}); }, "the ids of this collection are numbers");
    const std::vector<Record> metadata{{{"year", std::int64_t{1}}}};
    collection.upsert({.ids = span_of(Numbers{12}), .vectors = one, .metadata = metadata});
    const std::vector<Record> clash{{{"year", std::string("1")}}};
    refused([&] { collection.upsert({.ids = span_of(Numbers{13}), .vectors = one, .metadata = clash}); }, "holds int values");
    refused([&] { collection.add({.ids = span_of(Numbers{1, 2}), .vectors = two, .metadata = metadata}); },
            "metadata must have one entry for each of the 2 ids");
    refused([&] { static_cast<void>(collection.search({.queries = one, .k = 0})); }, "k must be between 1 and");
    refused([&] { static_cast<void>(collection.search({.k = 1})); }, "needs a vector or a text");
    const std::vector<float> three_values{1, 2, 3};
    refused([&] { static_cast<void>(collection.search({.queries = three_values})); }, "rows of dimension 2, got 3 values");
    const std::vector<float> bad{nan, 0};
    refused([&] { static_cast<void>(collection.search({.queries = bad})); }, "queries[0][0] must be finite");
    refused([&] { static_cast<void>(collection.search({.queries = one, .filter = field("yeer") == Value(std::int64_t{1})})); },
            "yeer");
    refused([&] { static_cast<void>(collection.search({.queries = one, .group_by = GroupBy{"lang", 1}})); },
            "must be a metadata field, got 'lang'; there are 'year'");
    refused([&] { static_cast<void>(database.create_collection("three", options_of(2, Metric::l2))); }, "already");
    refused([&] { static_cast<void>(database.create_collection("four", options_of(0, Metric::l2))); }, "dimension");
    CollectionOptions graph = options_of(2, Metric::l2, IndexKind::graph);
    graph.storage = Storage::int8;
    refused([&] { static_cast<void>(database.create_collection("four", graph)); }, "storage must be float32, float16");
    expect_failure<NotFound>([&] { static_cast<void>(database.collection("thre")); }, "did you mean 'three'?");
    EXPECT_EQ(collection.count(), 3U);
    EXPECT_EQ(collection.search({.queries = one, .k = 100}).scores.size(), 3U);  // k above the size is fine
    EXPECT_EQ(database.collection_names(), Texts{"three"});
}

TEST(Collection, AZeroVectorScoresNothingUnderCosine) {
    Database database = Database::in_memory(quiet());
    Collection collection = database.create_collection("zero", options_of(2, Metric::cosine));
    add_rows(collection, {1, 2, 3}, {0, 0, 2, 0, -1, 0});
    const std::vector<float> query{5, 0};
    const SearchHits hits = collection.search({.queries = query});
    EXPECT_EQ(numbers_of(hits), (Numbers{2, 1, 3}));
    EXPECT_EQ(hits.scores[1], 0);
    const std::vector<float> nothing{0, 0};
    EXPECT_EQ(collection.search({.queries = nothing}).scores, (std::vector<float>{0, 0, 0}));
}

TEST(Collection, AnEmptyOneAnswersNothing) {
    Database database = Database::in_memory(quiet());
    const Collection collection = database.create_collection("empty", options_of(2, Metric::l2));
    const std::vector<float> query{5, 0};
    EXPECT_EQ(collection.search({.queries = query}).offsets, (std::vector<std::size_t>{0, 0}));
    EXPECT_EQ(collection.search({.texts = Texts{"x", "y"}}).query_count(), 2U);
    EXPECT_EQ(collection.scroll({}).size(), 0U);
    EXPECT_EQ(collection.count(), 0U);
    EXPECT_NE(collection.explain({.queries = query}).to_string().find("flat"), std::string::npos);
}

TEST(Collection, ADocumentWithSeveralVectorsCountsOnce) {
    Database database = Database::in_memory(quiet());
    Collection collection = database.create_collection("several", options_of(1, Metric::l2));
    const std::vector<float> rows{0, 10, 20, 11};
    const std::vector<std::uint32_t> counts{3, 1};
    const std::vector<Record> metadata{{{"n", std::int64_t{1}}}, {{"n", std::int64_t{2}}}};
    collection.add({.ids = span_of(Numbers{1, 2}), .vectors = rows, .vector_counts = counts, .metadata = metadata});
    const std::vector<float> query{19};
    const SearchHits hits = collection.search({.queries = query, .k = 5, .include = {.vectors = true}});
    EXPECT_EQ(numbers_of(hits), (Numbers{1, 2}));
    EXPECT_EQ(hits.scores, (std::vector<float>{1, 64}));
    EXPECT_EQ(hits.documents.vectors, rows);
    EXPECT_EQ(hits.documents.vector_counts, counts);
    const SearchHits one = collection.search({.queries = query, .filter = field("n") == Value(std::int64_t{1})});
    EXPECT_EQ(one.scores, std::vector<float>{1});
    EXPECT_EQ(collection.stats().vectors, 4U);
    collection.remove(span_of(Numbers{1}));
    EXPECT_EQ(collection.stats().vectors, 1U);
}

TEST(Collection, ScrollsInTheOrderOfTheIds) {
    Database database = Database::in_memory(quiet());
    Collection collection = database.create_collection("docs", options_of(1, Metric::l2));
    Numbers ids(500);
    std::vector<Record> metadata(500);
    for (std::size_t i = 0; i < ids.size(); ++i) {
        ids[i] = static_cast<std::int64_t>((i * 7919) % 500) - 250;
        metadata[i] = {{"even", ids[i] % 2 == 0}};
    }
    collection.add({.ids = span_of(ids), .vectors = std::vector<float>(500, 1.0F), .metadata = metadata});
    Numbers seen;
    ScrollRequest request{.limit = 33, .filter = field("even") == Value(true)};
    for (DocumentList page = collection.scroll(request); page.size() > 0; page = collection.scroll(request)) {
        const auto& numbers = std::get<Numbers>(page.ids);
        seen.insert(seen.end(), numbers.begin(), numbers.end());
        request.after = numbers.back();
    }
    ASSERT_EQ(seen.size(), 250U);
    for (std::size_t i = 0; i < seen.size(); ++i) {
        ASSERT_EQ(seen[i], -250 + static_cast<std::int64_t>(i) * 2);
    }
    EXPECT_EQ(collection.count(field("even") == Value(false)), 250U);
    EXPECT_EQ(collection.remove(field("even") == Value(true)), 250U);
    EXPECT_EQ(collection.count(), 250U);
}

TEST(Collection, PagesNeverRepeatAndEndWithTheLast) {
    Database database = Database::in_memory(quiet());
    Collection collection = database.create_collection("docs", options_of(4, Metric::l2));
    std::mt19937 random(3);
    Numbers ids(200);
    for (std::size_t i = 0; i < ids.size(); ++i) {
        ids[i] = static_cast<std::int64_t>(i);
    }
    add_rows(collection, ids, random_rows(random, 200, 4));
    const std::vector<float> query = random_rows(random, 1, 4);
    const Numbers all = numbers_of(collection.search({.queries = query, .k = 200}));
    SearchPages pages = collection.search_pages({.queries = query});
    Numbers seen;
    for (SearchHits page = pages.next(30); page.scores.size() > 0; page = pages.next(30)) {
        const Numbers some = numbers_of(page);
        seen.insert(seen.end(), some.begin(), some.end());
    }
    EXPECT_EQ(seen, all);
}

TEST(Collection, DropAndRename) {
    Database database = Database::in_memory(quiet());
    Collection collection = three(database);
    database.rename_collection("three", "drei");
    EXPECT_EQ(collection.name(), "drei");
    EXPECT_FALSE(database.has_collection("three"));
    database.drop_collection("drei");
    EXPECT_EQ(collection.count(), 3U);
    expect_failure<NotFound>([&] { collection.remove(span_of(Numbers{10})); }, "was dropped");
    expect_failure<NotFound>([&] { database.drop_collection("drei"); }, "no collection 'drei'");
}

TEST(Collection, TenThousandOfThem) {
    TemporaryFolder folder;
    {
        Database database = Database::open(folder.file("db"), {.sync = storage::SyncPolicy::none});
        for (int i = 0; i < 10'000; ++i) {
            const Collection collection =
                database.create_collection("collection " + std::to_string(i), options_of(8, Metric::cosine));
            if (i % 10 == 0) {
                add_rows(collection, {i}, {1, 2, 3, 4, 5, 6, 7, static_cast<float>(i)});
            }
        }
    }
    Database database = Database::open(folder.file("db"), {});
    EXPECT_EQ(database.collection_names().size(), 10'000U);
    EXPECT_EQ(database.collection("collection 9990").count(), 1U);
    EXPECT_EQ(database.collection("collection 9991").count(), 0U);
}

}  // namespace
}  // namespace sage::vdb::testing
