// The same demands on every kind of index.
#include "sage/vdb/index.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "index_support.hpp"

namespace sage::vdb::testing {
namespace {

constexpr std::size_t dimension = index_dimension;

struct Case {
    IndexKind kind;
    Metric metric;
    Storage storage;
    std::size_t effort;
    double recall;
};

void PrintTo(const Case& of, std::ostream* out) {
    *out << index_kind_name(of.kind) << "_" << metric_name(of.metric) << "_" << storage_name(of.storage);
}

IndexOptions options_of(const Case& of) {
    IndexOptions options;
    options.dimension = dimension;
    options.metric = of.metric;
    options.kind = of.kind;
    options.storage = of.storage;
    return options;
}

class EveryIndex : public ::testing::TestWithParam<Case> {
protected:
    void fill(std::size_t count, std::size_t threads = 1) {
        std::vector<float> values = clustered_values(random_, count);
        index_ = make_index(options_of(GetParam()));
        index_->insert(consecutive_slots(count), values, threads);
        model_.clear();
        for (std::size_t i = 0; i < count; ++i) {
            model_.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(i * dimension),
                                values.begin() + static_cast<std::ptrdiff_t>((i + 1) * dimension));
        }
        queries_ = clustered_values(random_, 50);
    }
    double recall(const Allowed* allowed = nullptr) {
        return recall_of(*index_, model_, queries_, 10, GetParam().effort, allowed);
    }

    std::mt19937 random_{7};
    std::unique_ptr<Index> index_;
    Model model_;
    std::vector<float> queries_;
};

TEST_P(EveryIndex, finds_the_true_neighbours_with_their_scores) {
    fill(3000, 2);
    EXPECT_GE(recall(), GetParam().recall);
    const bool narrow = GetParam().storage != Storage::float32 || GetParam().kind == IndexKind::graph;
    const double tolerance = GetParam().storage == Storage::int8 ? 0.3 : narrow ? 0.15 : 1e-3;
    for (std::size_t q = 0; q < 5; ++q) {
        const std::span<const float> query(queries_.data() + q * dimension, dimension);
        const Hits hits = index_->search(query, 20, GetParam().effort);
        ASSERT_EQ(hits.slots.size(), 20U);
        for (std::size_t i = 0; i < hits.slots.size(); ++i) {
            const double score = true_score(GetParam().metric, query.data(), model_[hits.slots[i]].data());
            EXPECT_NEAR(hits.scores[i], score, tolerance * std::max(1.0, std::fabs(score) / 16));
            if (i > 0) {
                EXPECT_TRUE(higher_is_better(GetParam().metric) ? hits.scores[i] <= hits.scores[i - 1]
                                                                : hits.scores[i] >= hits.scores[i - 1]);
            }
        }
    }
    EXPECT_FALSE(index_->explain().empty());
    EXPECT_EQ(index_->stats().size, 3000U);
    EXPECT_GT(index_->stats().memory_bytes, 3000U * dimension / 8);
}

TEST_P(EveryIndex, a_batch_gives_what_each_query_alone_gives) {
    fill(2500);
    constexpr std::size_t k = 7;
    const auto words = allow_every(2500, 3);
    const Allowed allowed(words);
    for (const Allowed* filter : {static_cast<const Allowed*>(nullptr), &allowed}) {
        for (const std::size_t threads : {1U, 2U}) {
            std::vector<Slot> slots(50 * k);
            std::vector<float> scores(50 * k);
            std::vector<std::size_t> counts(50);
            index_->search_batch(queries_, k, GetParam().effort, slots.data(), scores.data(), counts.data(), threads,
                                 filter);
            for (std::size_t q = 0; q < 50; ++q) {
                Slot one[k];
                float score[k];
                const std::span<const float> query(queries_.data() + q * dimension, dimension);
                const std::size_t count = index_->search(query, k, GetParam().effort, one, score, filter);
                ASSERT_EQ(counts[q], count);
                EXPECT_TRUE(std::equal(one, one + count, slots.begin() + static_cast<std::ptrdiff_t>(q * k)));
                EXPECT_TRUE(std::equal(score, score + count, scores.begin() + static_cast<std::ptrdiff_t>(q * k)));
            }
        }
    }
}

TEST_P(EveryIndex, gives_only_what_is_allowed) {
    fill(6000);
    for (const std::size_t step : {2U, 10U, 100U, 1000U}) {
        const auto words = allow_every(6000, step);
        const Allowed allowed(words);
        EXPECT_GE(recall(&allowed), GetParam().recall - 0.05) << "one in " << step;
        for (std::size_t q = 0; q < 50; ++q) {
            const std::span<const float> query(queries_.data() + q * dimension, dimension);
            const Hits hits = index_->search(query, 10, GetParam().effort, allowed);
            for (const Slot slot : hits.slots) {
                EXPECT_EQ(slot % step, 0U);
            }
        }
    }
    const std::vector<std::uint64_t> none(3, 0);
    EXPECT_TRUE(index_->search({queries_.data(), dimension}, 10, 50, Allowed(none)).slots.empty());
    EXPECT_TRUE(index_->search({queries_.data(), dimension}, 10, 50, Allowed()).slots.empty());
}

TEST_P(EveryIndex, keeps_its_recall_when_a_fifth_is_replaced) {
    fill(3000);
    for (std::size_t round = 0; round < 6; ++round) {
        std::vector<Slot> gone;
        for (Slot slot = static_cast<Slot>(round); slot < 3000; slot += 30) {
            gone.push_back(slot);
        }
        EXPECT_EQ(index_->remove(gone), gone.size());
        EXPECT_EQ(index_->remove(gone), 0U);
        for (const Slot slot : gone) {
            model_[slot].clear();
            EXPECT_FALSE(index_->contains(slot));
        }
        const Hits hits = index_->search({queries_.data(), dimension}, 3000, 3000);
        for (const Slot slot : hits.slots) {
            EXPECT_FALSE(model_[slot].empty()) << "a removed slot was found";
        }
        index_->consolidate(1);
        std::vector<Slot> free = index_->take_free();
        std::sort(free.begin(), free.end());
        EXPECT_EQ(free, gone);
        const auto values = clustered_values(random_, free.size());
        index_->insert(free, values);
        for (std::size_t i = 0; i < free.size(); ++i) {
            model_[free[i]].assign(values.begin() + static_cast<std::ptrdiff_t>(i * dimension),
                                   values.begin() + static_cast<std::ptrdiff_t>((i + 1) * dimension));
        }
    }
    EXPECT_EQ(index_->size(), 3000U);
    EXPECT_GE(recall(), GetParam().recall - 0.02);
}

TEST_P(EveryIndex, saves_and_loads) {
    fill(2000);
    const std::vector<Slot> gone{0, 5, 1999};
    EXPECT_EQ(index_->remove(gone), 3U);
    const auto bytes = index_->save();
    const std::unique_ptr<Index> loaded = load_index(bytes);
    EXPECT_EQ(loaded->name(), index_->name());
    EXPECT_EQ(loaded->size(), 1997U);
    EXPECT_EQ(loaded->metric(), index_->metric());
    EXPECT_FALSE(loaded->contains(5));
    for (std::size_t q = 0; q < 50; ++q) {
        const std::span<const float> query(queries_.data() + q * dimension, dimension);
        const Hits before = index_->search(query, 10, GetParam().effort);
        const Hits after = loaded->search(query, 10, GetParam().effort);
        EXPECT_EQ(before.slots, after.slots);
        EXPECT_EQ(before.scores, after.scores);
    }
    loaded->consolidate();
    loaded->insert(consecutive_slots(100, 3000), clustered_values(random_, 100));
    EXPECT_EQ(loaded->size(), 2097U);
    // Cut off anywhere, or with one byte more, it is refused.
    for (std::size_t length = 0; length < bytes.size(); length += 1 + bytes.size() / 150) {
        EXPECT_THROW(static_cast<void>(load_index(std::span(bytes).first(length))), InvalidArgument);
    }
    auto longer = bytes;
    longer.push_back(std::byte{0});
    EXPECT_THROW(static_cast<void>(load_index(longer)), InvalidArgument);
}

TEST_P(EveryIndex, a_flipped_bit_is_refused_or_harmless) {
    fill(300);
    const auto bytes = index_->save();
    for (int i = 0; i < 300; ++i) {
        auto changed = bytes;
        // Heads are where the rules are: half of the flips go there.
        const std::size_t at = i % 2 == 0 ? random_() % 80 : random_() % changed.size();
        changed[at] ^= std::byte{1} << (random_() % 8);
        try {
            const auto loaded = load_index(changed);
            if (loaded->dimension() == dimension) {
                static_cast<void>(loaded->search({queries_.data(), dimension}, 10, 20));
                static_cast<void>(loaded->remove(consecutive_slots(300)));
                loaded->consolidate();
            }
        } catch (const Error&) {
            continue;
        }
    }
}

TEST_P(EveryIndex, searches_by_range) {
    fill(2000);
    const std::span<const float> query(queries_.data(), dimension);
    const Hits best = index_->search(query, 200, 2000);
    ASSERT_EQ(best.slots.size(), 200U);
    const float radius = best.scores[99];
    const Hits hits = index_->range_search(query, radius, 2000);
    EXPECT_GE(hits.slots.size(), 95U);
    EXPECT_LE(hits.slots.size(), 105U);
    for (const float score : hits.scores) {
        EXPECT_TRUE(higher_is_better(GetParam().metric) ? score >= radius : score <= radius);
    }
    const float nothing = GetParam().metric == Metric::l2 ? -1.0F : std::numeric_limits<float>::infinity();
    EXPECT_TRUE(index_->range_search(query, nothing, 50).slots.empty());
    const auto words = allow_every(2000, 2);
    const Allowed allowed(words);
    for (const Slot slot : index_->range_search(query, radius, 2000, &allowed).slots) {
        EXPECT_EQ(slot % 2, 0U);
    }
}

TEST_P(EveryIndex, holds_at_the_edges) {
    index_ = make_index(options_of(GetParam()));
    const std::vector<float> query(dimension, 1.0F);
    EXPECT_TRUE(index_->search(query, 10, 10).slots.empty());
    EXPECT_EQ(load_index(index_->save())->size(), 0U);
    index_->insert({}, {});
    const auto one = consecutive_slots(1, 40);
    const std::vector<float> zero(dimension, 0.0F);
    index_->insert(one, zero);
    EXPECT_EQ(index_->search(query, 10, 10).slots, one);
    const float score = index_->search(query, 1, 1).scores[0];
    EXPECT_NEAR(score, GetParam().metric == Metric::l2 ? static_cast<float>(dimension) : 0.0F, 0.01);
    std::vector<float> stored(dimension, 5.0F);
    EXPECT_TRUE(index_->get(40, stored));
    EXPECT_EQ(stored, zero);
    EXPECT_FALSE(index_->get(41, stored));
    EXPECT_FALSE(index_->get(4'000'000, stored));
    // Alike vectors, in great number.
    index_->insert(consecutive_slots(2000, 100), std::vector<float>(2000 * dimension, 0.5F));
    EXPECT_EQ(index_->search(query, 10, 100).slots.size(), 10U);
    auto all = consecutive_slots(2100);
    EXPECT_EQ(index_->remove(all), 2001U);
    EXPECT_EQ(index_->size(), 0U);
    EXPECT_TRUE(index_->search(query, 10, 10).slots.empty());
    index_->consolidate();
    index_->insert(one, query);
    EXPECT_EQ(index_->search(query, 10, 10).slots, one);
}

TEST_P(EveryIndex, refuses_bad_input_and_stays_as_it_was) {
    fill(100);
    const std::vector<float> row(dimension, 1.0F);
    std::vector<float> bad = row;
    bad[3] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_THROW(index_->insert(consecutive_slots(1, 200), bad), InvalidArgument);
    bad[3] = std::numeric_limits<float>::infinity();
    EXPECT_THROW(index_->insert(consecutive_slots(1, 200), bad), InvalidArgument);
    bad[3] = 1e19F;
    EXPECT_THROW(index_->insert(consecutive_slots(1, 200), bad), InvalidArgument);
    EXPECT_THROW(static_cast<void>(index_->search(bad, 3, 3)), InvalidArgument);
    EXPECT_THROW(index_->insert(consecutive_slots(1, 200), std::span(row).first(dimension - 1)), InvalidArgument);
    EXPECT_THROW(index_->insert(consecutive_slots(2, 200), row), InvalidArgument);
    EXPECT_THROW(index_->insert(consecutive_slots(1, 5), row), InvalidArgument);
    const std::vector<Slot> twice{200, 200};
    EXPECT_THROW(index_->insert(twice, std::vector<float>(2 * dimension, 1.0F)), InvalidArgument);
    EXPECT_THROW(static_cast<void>(index_->search(std::span(row).first(3), 3, 3)), InvalidArgument);
    EXPECT_THROW(static_cast<void>(index_->search(row, 0, 3)), InvalidArgument);
    EXPECT_EQ(index_->size(), 100U);
    EXPECT_EQ(index_->search(row, 1000, 1000).slots.size(), 100U);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, EveryIndex,
    ::testing::Values(Case{IndexKind::flat, Metric::l2, Storage::float32, 1, 1.0},
                      Case{IndexKind::flat, Metric::cosine, Storage::float32, 1, 1.0},
                      Case{IndexKind::flat, Metric::inner_product, Storage::float32, 1, 1.0},
                      Case{IndexKind::flat, Metric::l2, Storage::float16, 1, 0.98},
                      Case{IndexKind::flat, Metric::cosine, Storage::bfloat16, 1, 0.90},
                      Case{IndexKind::flat, Metric::l2, Storage::int8, 1, 0.90},
                      Case{IndexKind::flat, Metric::cosine, Storage::int4, 1, 0.97},
                      Case{IndexKind::flat, Metric::l2, Storage::bit1, 1, 0.90},
                      Case{IndexKind::flat, Metric::cosine, Storage::bit1, 1, 0.90},
                      Case{IndexKind::ivf_flat, Metric::l2, Storage::float32, 30, 0.95},
                      Case{IndexKind::ivf_flat, Metric::cosine, Storage::float32, 30, 0.95},
                      Case{IndexKind::ivf_flat, Metric::inner_product, Storage::float32, 40, 0.90},
                      Case{IndexKind::ivf_flat, Metric::l2, Storage::int8, 40, 0.90},
                      Case{IndexKind::ivf_flat, Metric::l2, Storage::bit1, 40, 0.88},
                      Case{IndexKind::hnsw, Metric::l2, Storage::float32, 100, 0.95},
                      Case{IndexKind::hnsw, Metric::cosine, Storage::float32, 100, 0.95},
                      Case{IndexKind::hnsw, Metric::inner_product, Storage::float32, 150, 0.85},
                      Case{IndexKind::hnsw, Metric::l2, Storage::float16, 100, 0.95},
                      Case{IndexKind::hnsw, Metric::cosine, Storage::int8, 100, 0.90},
                      Case{IndexKind::graph, Metric::l2, Storage::float32, 100, 0.95},
                      Case{IndexKind::graph, Metric::cosine, Storage::float32, 100, 0.95}),
    [](const auto& named) {
        return std::string(index_kind_name(named.param.kind)) + "_" +
               std::string(metric_name(named.param.metric)) + "_" + std::string(storage_name(named.param.storage));
    });

TEST(Index, automatic_goes_by_size_and_says_why) {
    IndexOptions options;
    options.dimension = 128;
    options.expected_size = 1000;
    EXPECT_EQ(make_index(options)->name(), "flat");
    EXPECT_NE(make_index(options)->explain().find("500 KiB"), std::string::npos) << make_index(options)->explain();
    options.expected_size = 1'000'000;
    EXPECT_EQ(make_index(options)->name(), "graph");
    EXPECT_NE(make_index(options)->explain().find("1000000 expected rows"), std::string::npos);
    options.expected_size = 0;
    EXPECT_EQ(make_index(options)->name(), "graph");
}

TEST(Index, refuses_options_that_make_no_sense) {
    IndexOptions options;
    EXPECT_THROW(static_cast<void>(make_index(options)), InvalidArgument);
    options.dimension = 8;
    options.kind = IndexKind::hnsw;
    options.links = 1;
    EXPECT_THROW(static_cast<void>(make_index(options)), InvalidArgument);
    EXPECT_THROW(static_cast<void>(index_kind_from_name("tree")), InvalidArgument);
    EXPECT_THROW(static_cast<void>(storage_from_name("float8")), InvalidArgument);
}

TEST(Index, lists_split_as_the_index_grows) {
    std::mt19937 random(5);
    IndexOptions options;
    options.dimension = dimension;
    options.kind = IndexKind::ivf_flat;
    options.metric = Metric::l2;
    const auto index = make_index(options);
    Model model;
    for (std::size_t first = 0; first < 6000; first += 50) {
        const auto values = clustered_values(random, 50);
        index->insert(consecutive_slots(50, static_cast<Slot>(first)), values);
        for (std::size_t i = 0; i < 50; ++i) {
            model.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(i * dimension),
                               values.begin() + static_cast<std::ptrdiff_t>((i + 1) * dimension));
        }
    }
    EXPECT_GE(index->stats().lists, 20U);
    EXPECT_LE(index->stats().lists, 200U);
    const auto queries = clustered_values(random, 30);
    EXPECT_GE(recall_of(*index, model, queries, 10, 10), 0.9);
    EXPECT_EQ(recall_of(*index, model, queries, 10, 1000), 1.0);
}

TEST(RowCodec, keeps_values_as_its_errors_say) {
    std::mt19937 random(11);
    for (const std::size_t size : {1U, 7U, 64U, 129U, 300U}) {
        const auto vector = random_values(random, size);
        const auto [low, high] = std::minmax_element(vector.begin(), vector.end());
        for (const Storage storage :
             {Storage::float32, Storage::float16, Storage::bfloat16, Storage::int8, Storage::int4}) {
            const RowCodec codec(size, Metric::l2, storage);
            std::vector<std::byte> row(codec.row_bytes());
            std::vector<float> decoded(size);
            codec.encode(vector.data(), row.data());
            codec.decode(row.data(), decoded.data());
            EXPECT_EQ(codec.flaw(row.data()), nullptr);
            const float steps = storage == Storage::int8 ? 255.0F : 15.0F;
            for (std::size_t i = 0; i < size; ++i) {
                const float bound = storage == Storage::float32    ? 0.0F
                                    : storage == Storage::float16  ? std::fabs(vector[i]) / 2048
                                    : storage == Storage::bfloat16 ? std::fabs(vector[i]) / 256
                                                                   : (*high - *low) / steps / 2 * 1.001F + 1e-6F;
                EXPECT_NEAR(decoded[i], vector[i], bound + 1e-7F) << storage_name(storage);
            }
        }
    }
}

TEST(RowCodec, costs_estimate_those_of_the_decoded_rows) {
    std::mt19937 random(12);
    for (const Metric metric : {Metric::l2, Metric::inner_product}) {
        for (const Storage storage : {Storage::int8, Storage::int4, Storage::bit1}) {
            constexpr std::size_t size = 200;
            RowCodec codec(size, metric, storage);
            const auto vectors = random_values(random, 100 * size);
            codec.learn(vectors);
            const auto query = random_values(random, size);
            RowCodec::Query prepared;
            codec.prepare(query.data(), prepared);
            double error = 0.0;
            for (std::size_t i = 0; i < 100; ++i) {
                std::vector<std::byte> row(codec.row_bytes());
                codec.encode(vectors.data() + i * size, row.data());
                const std::byte* pointer = row.data();
                float cost = 0.0F;
                codec.costs(prepared, &pointer, 1, &cost);
                double truth = 0.0;
                for (std::size_t j = 0; j < size; ++j) {
                    const double x = vectors[i * size + j];
                    truth += metric == Metric::l2 ? (x - query[j]) * (x - query[j]) : -x * query[j];
                }
                error += (cost - truth) * (cost - truth) / 100;
            }
            // |q||x| is about 200; the estimate of single bits is off by about |q||x| * 0.75 / sqrt(200).
            EXPECT_LT(std::sqrt(error), storage == Storage::bit1 ? 35.0 : storage == Storage::int4 ? 5.0 : 1.0)
                << storage_name(storage);
        }
    }
}

}  // namespace
}  // namespace sage::vdb::testing
