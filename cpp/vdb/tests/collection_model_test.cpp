// Random operations on a collection and on a plain map, with everything that a search can do held against brute force.
#include <gtest/gtest.h>

#include "collection_model.hpp"

namespace sage::vdb::testing {
namespace {

constexpr std::size_t dimension = 6;

struct Case {
    Metric metric;
    IndexKind index;
    std::int64_t id_end;
    int steps;
};

class CollectionModel : public ::testing::TestWithParam<Case> {
protected:
    void check_search(const Collection& collection, const PlainCollection& plain, std::mt19937& random) const {
        const Metric metric = GetParam().metric;
        const std::vector<float> query = random_rows(random, 1, dimension);
        const std::size_t k = 1 + random() % 20;
        const auto all = [](const Plain&) { return true; };
        expect_scores(collection.search({.queries = query, .k = k, .recall = 1}),
                      best_scores(plain, metric, query, k, all), "exact");
        const auto number = static_cast<std::int64_t>(random() % 20);
        const auto below = [number](const Plain& document) {
            const auto found = document.metadata.find("number");
            return found != document.metadata.end() && std::get<std::int64_t>(found->second) < number;
        };
        bool has_field = false;
        for (const auto& [id, document] : plain) {
            has_field = has_field || document.metadata.contains("number");
        }
        if (has_field) {
            const Filter filter = field("number") < Value(number);
            expect_scores(collection.search({.queries = query, .k = k, .recall = 1, .filter = filter}),
                          best_scores(plain, metric, query, k, below), "filtered");
            expect_scores(
                collection.search({.queries = query, .k = k, .filter = filter, .plan = FilterPlan::before}),
                best_scores(plain, metric, query, k, below), "filtered before");
            for (const FilterPlan plan : {FilterPlan::automatic, FilterPlan::in_index, FilterPlan::after}) {
                const SearchHits hits = collection.search(
                    {.queries = query, .k = k, .filter = filter, .plan = plan, .include = {.metadata = true}});
                for (std::size_t i = 0; i < hits.scores.size(); ++i) {
                    const std::int64_t id = std::get<Numbers>(hits.documents.ids)[i];
                    ASSERT_TRUE(plain.contains(id));
                    ASSERT_TRUE(below(plain.at(id))) << filter_plan_name(plan);
                    ASSERT_NEAR(hits.scores[i], best_score(metric, query, plain.at(id)), 1e-3) << filter_plan_name(plan);
                }
            }
        }
        const float radius = metric == Metric::l2 ? 5.0F : 0.7F;
        std::vector<double> within = best_scores(plain, metric, query, plain.size(), all);
        std::erase_if(within, [&](double score) { return metric == Metric::l2 ? score > radius : score < radius; });
        within.resize(std::min<std::size_t>(within.size(), 50));
        expect_scores(collection.search({.queries = query, .k = 50, .recall = 1, .radius = radius}), within, "radius");
    }
};

TEST_P(CollectionModel, BehavesAsAMap) {
    const Case& now = GetParam();
    TemporaryFolder folder;
    std::mt19937 random(17);
    PlainCollection plain;
    DatabaseOptions options = quiet();
    options.sync = storage::SyncPolicy::none;
    options.checkpoint_at_close = false;
    auto database = std::make_unique<Database>(Database::open(folder.file("db"), options));
    auto collection = std::make_unique<Collection>(
        database->create_collection("docs", options_of(dimension, now.metric, now.index)));
    for (int step = 0; step < now.steps; ++step) {
        const RandomChange change(random, plain, now.id_end, dimension);
        change.apply(*collection);
        change.apply(plain);
        const auto what = random() % 40;
        if (what < 4) {
            check_search(*collection, plain, random);
            ASSERT_FALSE(HasFatalFailure()) << "step " << step;
        } else if (what < 6) {
            collection->compact(1);
        } else if (what == 6) {
            database->checkpoint();
        } else if (what == 7) {
            ASSERT_TRUE(same_contents(*collection, plain)) << "step " << step;
        } else if (what == 8) {
            collection.reset();
            database.reset();
            database = std::make_unique<Database>(Database::open(folder.file("db"), options));
            collection = std::make_unique<Collection>(database->collection("docs"));
            ASSERT_TRUE(same_contents(*collection, plain)) << "step " << step << ", opened again";
        }
    }
    collection->compact(1);
    ASSERT_TRUE(same_contents(*collection, plain));
    check_search(*collection, plain, random);
    const CollectionStats stats = collection->stats();
    EXPECT_EQ(stats.documents, plain.size());
    if (now.index != IndexKind::automatic && now.id_end > 1000) {
        EXPECT_EQ(stats.index, index_kind_name(now.index));
        EXPECT_EQ(stats.indexed, stats.vectors);
        EXPECT_EQ(stats.recent, 0U);
    }
}

INSTANTIATE_TEST_SUITE_P(Cases, CollectionModel,
                         ::testing::Values(Case{Metric::l2, IndexKind::flat, 60, 1500}, Case{Metric::cosine, IndexKind::automatic, 200, 1000},
                                           Case{Metric::inner_product, IndexKind::flat, 60, 500},
                                           Case{Metric::l2, IndexKind::graph, 4000, 800},
                                           Case{Metric::cosine, IndexKind::graph, 4000, 800},
                                           Case{Metric::l2, IndexKind::flat, 3000, 1000},
                                           Case{Metric::cosine, IndexKind::hnsw, 3000, 1000},
                                           Case{Metric::inner_product, IndexKind::ivf_flat, 3000, 1000}),
                         [](const auto& tested) {
                             return std::string(metric_name(tested.param.metric)) + "_" +
                                    std::string(index_kind_name(tested.param.index)) + "_" +
                                    std::to_string(tested.param.id_end);
                         });

// Modes whose answers have an order of their own.

class CollectionModes : public ::testing::Test {
protected:
    void SetUp() override {
        std::mt19937 random(5);
        const Batch batch = random_batch(random, 300, 1000, dimension);
        batch.enter(plain_, dimension);
        collection_.add(batch.view());
        query_ = random_rows(random, 1, dimension);
    }
    Database database_ = Database::in_memory(quiet());
    Collection collection_ = database_.create_collection("docs", options_of(dimension, Metric::cosine));
    PlainCollection plain_;
    std::vector<float> query_;
};

TEST_F(CollectionModes, MmrIsTheGreedyChoice) {
    const SearchHits hits = collection_.search({.queries = query_, .k = 8, .mmr = Mmr{0.4, 40}});
    const SearchHits candidates = collection_.search({.queries = query_, .k = 40, .include = {.vectors = true}});
    std::vector<std::int64_t> pool = std::get<Numbers>(candidates.documents.ids);
    Numbers expected;
    const auto vector = [&](std::int64_t id) -> const std::vector<float>& { return plain_.at(id).vectors.front(); };
    while (expected.size() < 8) {
        double best = -1e9;
        std::int64_t chosen = 0;
        for (const std::int64_t id : pool) {
            double other = expected.empty() ? 0 : -1e9;
            for (const std::int64_t before : expected) {
                other = std::max(other, score_of(Metric::cosine, vector(id), vector(before)));
            }
            const double worth = 0.4 * best_score(Metric::cosine, query_, plain_.at(id)) - 0.6 * other;
            if (worth > best) {
                best = worth;
                chosen = id;
            }
        }
        expected.push_back(chosen);
        std::erase(pool, chosen);
    }
    EXPECT_EQ(numbers_of(hits), expected);
    EXPECT_EQ(numbers_of(collection_.search({.queries = query_, .k = 8, .mmr = Mmr{1.0, 0}})),
              numbers_of(collection_.search({.queries = query_, .k = 8})));
}

TEST_F(CollectionModes, GroupsAreThoseOfTheBest) {
    const SearchHits hits =
        collection_.search({.queries = query_, .k = 5, .group_by = GroupBy{"number", 3}, .include = {.metadata = true}});
    const Numbers order = numbers_of(collection_.search({.queries = query_, .k = 300}));
    std::vector<std::pair<std::optional<Value>, Numbers>> groups;
    for (const std::int64_t id : order) {
        const auto& metadata = plain_.at(id).metadata;
        const auto found = metadata.find("number");
        const auto value = found == metadata.end() ? std::nullopt : std::optional(found->second);
        const auto known = std::find_if(groups.begin(), groups.end(), [&](const auto& group) { return group.first == value; });
        if (known == groups.end() && groups.size() < 5) {
            groups.push_back({value, {id}});
        } else if (known != groups.end() && known->second.size() < 3) {
            known->second.push_back(id);
        }
    }
    Numbers expected;
    for (const auto& [value, members] : groups) {
        expected.insert(expected.end(), members.begin(), members.end());
    }
    EXPECT_EQ(numbers_of(hits), expected);
}

TEST_F(CollectionModes, WordsAndVectorsAreFused) {
    const Texts texts{"graph disk"};
    const Numbers by_vector = numbers_of(collection_.search({.queries = query_, .k = 64}));
    const SearchHits word_hits = collection_.search({.texts = texts, .k = 64});
    const Numbers by_words = numbers_of(word_hits);
    ASSERT_FALSE(by_words.empty());
    std::map<std::int64_t, double> scores;
    for (const Numbers* side : {&by_vector, &by_words}) {
        for (std::size_t i = 0; i < side->size(); ++i) {
            scores[(*side)[i]] += 1.0 / (60.0 + static_cast<double>(i) + 1.0);
        }
    }
    const SearchHits hits = collection_.search({.queries = query_, .texts = texts, .k = 10});
    ASSERT_EQ(hits.scores.size(), 10U);
    double least = 1;
    for (std::size_t i = 0; i < 10; ++i) {
        const std::int64_t id = numbers_of(hits)[i];
        ASSERT_NEAR(hits.scores[i], scores.at(id), 1e-6);
        least = std::min(least, scores.at(id));
        scores.erase(id);
    }
    for (const auto& [id, score] : scores) {
        ASSERT_LE(score, least + 1e-9);
    }
    const Fusion only_words{.kind = Fusion::Kind::weighted, .alpha = 0.0};
    const SearchHits words = collection_.search({.queries = query_, .texts = texts, .k = 5, .fusion = only_words});
    EXPECT_EQ(words.scores[0], 1.0F);
    const Fusion only_vectors{.kind = Fusion::Kind::weighted, .alpha = 1.0};
    EXPECT_EQ(numbers_of(collection_.search({.queries = query_, .texts = texts, .k = 5, .fusion = only_vectors})),
              Numbers(by_vector.begin(), by_vector.begin() + 5));
    const SearchHits filtered = collection_.search(
        {.queries = query_, .texts = texts, .k = 20, .filter = field("word") == Value(std::string("log"))});
    for (const std::int64_t id : numbers_of(filtered)) {
        EXPECT_EQ(std::get<std::string>(plain_.at(id).metadata.at("word")), "log");
    }
}

TEST_F(CollectionModes, ABatchGivesTheAnswersOfEach) {
    std::mt19937 random(9);
    const std::vector<float> queries = random_rows(random, 50, dimension);
    const SearchHits batch = collection_.search({.queries = queries, .k = 7, .threads = 3});
    ASSERT_EQ(batch.query_count(), 50U);
    for (std::size_t i = 0; i < 50; ++i) {
        const auto query = std::span(queries).subspan(i * dimension, dimension);
        ASSERT_EQ(numbers_of(batch, i), numbers_of(collection_.search({.queries = query, .k = 7})));
    }
}

TEST(CollectionIndex, TakesOverAndFindsWhatIsThere) {
    Database database = Database::in_memory(quiet());
    Collection collection = database.create_collection("docs", options_of(16, Metric::l2, IndexKind::graph));
    std::mt19937 random(11);
    constexpr std::size_t count = 3000;
    Numbers ids(count);
    std::vector<Record> metadata(count);
    for (std::size_t i = 0; i < count; ++i) {
        ids[i] = static_cast<std::int64_t>(i);
        metadata[i] = {{"part", static_cast<std::int64_t>(i % 100)}};
    }
    const std::vector<float> rows = random_rows(random, count, 16);
    collection.add({.ids = span_of(ids), .vectors = rows, .metadata = metadata});
    EXPECT_EQ(collection.stats().index, "flat");
    collection.compact(1);
    EXPECT_EQ(collection.stats().index, "graph");
    EXPECT_EQ(collection.stats().recent, 0U);
    std::size_t found = 0;
    std::size_t filtered = 0;
    const Filter half = field("part") < Value(std::int64_t{80});
    constexpr std::size_t queries = 50;
    for (std::size_t i = 0; i < queries; ++i) {
        const std::vector<float> query = random_rows(random, 1, 16);
        for (const bool filter : {false, true}) {
            SearchRequest request{.queries = query, .k = 10};
            if (filter) {
                request.filter = half;
            }
            const Numbers near = numbers_of(collection.search(request));
            request.recall = 1;
            const Numbers exact = numbers_of(collection.search(request));
            for (const std::int64_t id : exact) {
                (filter ? filtered : found) += std::find(near.begin(), near.end(), id) == near.end() ? 0 : 1;
            }
        }
    }
    EXPECT_GT(found, queries * 10 * 9 / 10);
    EXPECT_GT(filtered, queries * 10 * 9 / 10);
    const std::vector<float> query = random_rows(random, 1, 16);
    EXPECT_EQ(collection.explain({.queries = query, .filter = half}).plan, FilterPlan::after);
    EXPECT_EQ(collection.explain({.queries = query, .filter = field("part") == Value(std::int64_t{3})}).plan,
              FilterPlan::before);
}

// Each form, with an index: what get() gives is near what was put in, the same before and after a snapshot, and exact
// search agrees with it.
struct Form {
    IndexKind index;
    Storage storage;
    float error;  // of a value, at most
};
class CollectionStorage : public ::testing::TestWithParam<Form> {};
INSTANTIATE_TEST_SUITE_P(Forms, CollectionStorage,
                         ::testing::Values(Form{IndexKind::graph, Storage::float16, 2e-3F},
                                           Form{IndexKind::graph, Storage::bfloat16, 2e-2F},
                                           Form{IndexKind::flat, Storage::int8, 2e-2F},
                                           Form{IndexKind::hnsw, Storage::int8, 2e-2F},
                                           Form{IndexKind::flat, Storage::bit1, 2e-3F},
                                           Form{IndexKind::ivf_flat, Storage::int4, 2e-3F}));

TEST_P(CollectionStorage, KeepsVectorsAsItSays) {
    const Form& form = GetParam();
    TemporaryFolder folder;
    CollectionOptions options = options_of(16, Metric::l2, form.index);
    options.storage = form.storage;
    std::mt19937 random(3);
    constexpr std::size_t count = 1500;
    const std::vector<float> rows = random_rows(random, count, 16);
    Numbers ids(count);
    for (std::size_t i = 0; i < count; ++i) {
        ids[i] = static_cast<std::int64_t>(i);
    }
    std::vector<float> stored;
    const std::vector<float> queries = random_rows(random, 20, 16);
    SearchHits before;
    {
        Database database = Database::open(folder.file("db"), quiet());
        Collection collection = database.create_collection("docs", options);
        add_rows(collection, ids, rows);
        collection.compact(1);
        EXPECT_EQ(collection.stats().index, index_kind_name(form.index));
        EXPECT_EQ(collection.stats().indexed, count);
        stored = collection.get(span_of(ids), {.vectors = true}).vectors;
        for (std::size_t i = 0; i < rows.size(); ++i) {
            ASSERT_NEAR(stored[i], rows[i], form.error) << i;
        }
        before = collection.search({.queries = queries, .k = 10, .recall = 0.99});
        std::size_t found = 0;
        for (std::size_t i = 0; i < 20; ++i) {
            const auto query = std::span(queries).subspan(i * 16, 16);
            const SearchHits exact = collection.search({.queries = query, .k = 10, .recall = 1});
            for (std::size_t hit = 0; hit < 10; ++hit) {
                const std::int64_t id = numbers_of(exact)[hit];
                const auto row = std::span(stored).subspan(static_cast<std::size_t>(id) * 16, 16);
                ASSERT_NEAR(exact.scores[hit], score_of(Metric::l2, query, row), 1e-3);
            }
            const Numbers near = numbers_of(before, i);
            for (const std::int64_t id : numbers_of(exact)) {
                found += static_cast<std::size_t>(std::count(near.begin(), near.end(), id));
            }
        }
        EXPECT_GE(found, 160U);  // of 200
    }
    const Database database = Database::open(folder.file("db"), quiet());
    const Collection collection = database.collection("docs");
    EXPECT_EQ(collection.options().storage, form.storage);
    EXPECT_EQ(collection.get(span_of(ids), {.vectors = true}).vectors, stored);
    EXPECT_EQ(collection.search({.queries = queries, .k = 10, .recall = 0.99}).scores, before.scores);
}

TEST(CollectionIndex, BatchesGiveTheAnswersOfEach) {
    Database database = Database::in_memory(quiet());
    Collection collection = database.create_collection("docs", options_of(8, Metric::cosine, IndexKind::flat));
    std::mt19937 random(21);
    constexpr std::size_t count = 2500;
    Numbers ids(count);
    for (std::size_t i = 0; i < count; ++i) {
        ids[i] = static_cast<std::int64_t>(i);
    }
    add_rows(collection, ids, random_rows(random, count, 8));
    collection.compact(1);
    add_rows(collection, {5000, 5001}, random_rows(random, 2, 8));
    EXPECT_EQ(collection.stats().recent, 2U);
    const std::vector<float> queries = random_rows(random, 64, 8);
    const SearchHits batch = collection.search({.queries = queries, .k = 9, .threads = 2});
    for (std::size_t i = 0; i < 64; ++i) {
        const SearchHits one = collection.search({.queries = std::span(queries).subspan(i * 8, 8), .k = 9});
        ASSERT_EQ(numbers_of(batch, i), numbers_of(one)) << i;
    }
}

}  // namespace
}  // namespace sage::vdb::testing
