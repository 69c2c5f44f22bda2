#include "sage/vdb/bm25.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "sage/common/error.hpp"
#include "sage/vdb/tokenizer.hpp"

namespace sage::vdb {
namespace {

using Texts = std::map<Slot, std::string>;

std::map<std::string, std::uint32_t> counts_of(std::string_view text) {
    Tokenizer tokenizer;
    std::map<std::string, std::uint32_t> counts;
    for (const std::string_view token : tokenizer.tokens(text)) {
        ++counts[std::string(token)];
    }
    return counts;
}

// The formula over all texts, document by document.
std::vector<TextHit> reference(const Texts& texts, Bm25Options options, const std::string& query, std::size_t k,
                               const SlotSet* allowed) {
    std::map<Slot, std::map<std::string, std::uint32_t>> documents;
    std::map<std::string, std::size_t> found;
    std::uint64_t total = 0;
    std::map<Slot, std::uint64_t> lengths;
    for (const auto& [slot, text] : texts) {
        documents[slot] = counts_of(text);
        for (const auto& [token, count] : documents[slot]) {
            ++found[token];
            lengths[slot] += count;
            total += count;
        }
    }
    const auto n = static_cast<double>(texts.size());
    const double mean = static_cast<double>(total) / n;
    std::vector<TextHit> hits;
    for (const auto& [slot, document] : documents) {
        double score = 0;
        for (const auto& [token, weight] : counts_of(query)) {
            const auto count = document.find(token);
            if (count == document.end()) {
                continue;
            }
            const auto df = static_cast<double>(found[token]);
            const double idf = weight * std::log1p((n - df + 0.5) / (df + 0.5));
            const double length = static_cast<double>(lengths[slot]);
            const volatile double numerator = idf * count->second;
            const volatile double share = options.k1 * options.b / mean * length;
            score += numerator / (count->second + options.k1 * (1.0 - options.b) + share);
        }
        if (score > 0 && (allowed == nullptr || allowed->contains(slot))) {
            hits.push_back({slot, score});
        }
    }
    std::stable_sort(hits.begin(), hits.end(), [](const TextHit& a, const TextHit& b) { return a.score > b.score; });
    hits.resize(std::min(k, hits.size()));
    return hits;
}

// Zipf-like words, so that there are frequent and rare ones.
class Words {
public:
    explicit Words(unsigned seed) : random_(seed) {}
    std::string text(std::size_t words_min, std::size_t words_max, double spread) {
        std::string text;
        std::size_t left = std::uniform_int_distribution<std::size_t>(words_min, words_max)(random_);
        for (; left > 0; --left) {
            text.append("w").append(std::to_string(static_cast<int>(std::pow(spread, uniform(random_))))).append(" ");
        }
        return text;
    }
    std::mt19937& random() { return random_; }
    std::uniform_real_distribution<double> uniform{0.0, 1.0};

private:
    std::mt19937 random_;
};

TEST(Bm25, FollowsTheFormulaThroughRandomUpdates) {
    Words words(1);
    for (const Bm25Options options : {Bm25Options{}, Bm25Options{0.0, 0.5}, Bm25Options{2.0, 1.0}, Bm25Options{0.9, 0.0}}) {
        Bm25Index index(options);
        Texts texts;
        std::vector<std::pair<Bm25Snapshot, Texts>> versions;
        for (int turn = 0; turn < 250; ++turn) {
            Bm25Batch batch = index.begin();
            Texts changed = texts;
            for (int i = 0; i < 6; ++i) {
                const Slot slot = std::uniform_int_distribution<Slot>(0, 60)(words.random()) * 997;
                if (words.uniform(words.random()) < 0.35) {
                    ASSERT_EQ(batch.erase(slot), changed.erase(slot) == 1);
                } else {
                    changed[slot] = words.text(0, 25, 40);
                    batch.replace(slot, changed[slot]);
                }
            }
            if (words.uniform(words.random()) < 0.85) {
                batch.commit();
                texts = changed;
            }
            if (turn % 50 == 0) {
                versions.emplace_back(index.snapshot(), texts);
            }
            const std::string query = words.text(0, 6, 60);
            const std::size_t k = turn % 7 == 0 ? 1'000 : 5;
            ASSERT_EQ(index.snapshot().search(query, k), reference(texts, options, query, k, nullptr)) << query;
        }
        for (const auto& [snapshot, expected] : versions) {
            ASSERT_EQ(snapshot.search("w1 w2 w3", 10), reference(expected, options, "w1 w2 w3", 10, nullptr));
            Bm25Index loaded = Bm25Index::load(snapshot.save());
            ASSERT_EQ(loaded.snapshot().search("w1 w2 w3", 10), snapshot.search("w1 w2 w3", 10));
            ASSERT_EQ(loaded.snapshot().save(), snapshot.save());
            // What was loaded can be changed, and what is changed back is what it was.
            loaded.replace(7, "w1 something new");
            ASSERT_EQ(loaded.snapshot().size(), expected.size() + 1);
            ASSERT_TRUE(loaded.erase(7));
            ASSERT_EQ(loaded.snapshot().save(), snapshot.save());
        }
        Bm25Batch batch = index.begin();
        for (const auto& [slot, text] : texts) {
            ASSERT_TRUE(batch.erase(slot));
        }
        batch.commit();
        const Bm25Stats stats = index.snapshot().stats();
        EXPECT_EQ(stats.documents + stats.terms + stats.postings + stats.tokens, 0U);
        EXPECT_EQ(index.snapshot().search("w1", 3), std::vector<TextHit>{});
    }
}

// Large enough for several leaves, windows and tokens that are left for later.
TEST(Bm25, PassingOverChangesNothing) {
    Words words(2);
    Bm25Index index;
    Texts texts;
    constexpr Slot end = 15'000;
    Bm25Batch batch = index.begin();
    for (Slot slot = 0; slot < end; ++slot) {
        texts[slot] = words.text(1, slot % 100 == 0 ? 200 : 20, 3'000);
        batch.replace(slot, texts[slot]);
    }
    for (Slot slot = 0; slot < end; slot += 11) {
        batch.erase(slot);
        texts.erase(slot);
    }
    batch.commit();
    const Bm25Snapshot snapshot = index.snapshot();
    for (int turn = 0; turn < 300; ++turn) {
        const std::string query = words.text(1, 8, turn % 2 == 0 ? 3'000 : 30);
        const std::size_t k = turn % 3 == 0 ? 1 : turn % 3 == 1 ? 10 : 500;
        SlotSet allowed;
        for (Slot slot = 0; slot < end; ++slot) {
            if (slot % 97 < static_cast<Slot>(turn % 40)) {
                allowed.insert(slot);
            }
        }
        ASSERT_EQ(snapshot.search(query, k), snapshot.search_all(query, k)) << query;
        ASSERT_EQ(snapshot.search(query, k, &allowed), snapshot.search_all(query, k, &allowed)) << query;
        if (turn % 100 == 0) {
            ASSERT_EQ(snapshot.search(query, k, &allowed), reference(texts, {}, query, k, &allowed)) << query;
        }
    }
}

// Updates and searches with the scores that sage.libs' BM25Index gave. Written by tools/golden_bm25.py.
TEST(Bm25, GivesTheScoresOfItsPythonTwin) {
    std::ifstream file(SAGE_TEST_DATA "/bm25.txt");
    ASSERT_TRUE(file.good());
    Bm25Index index({0.9, 0.4});
    std::size_t searches = 0;
    for (std::string line; std::getline(file, line);) {
        std::vector<std::string> parts;
        std::istringstream columns(line + "\t");
        for (std::string part; std::getline(columns, part, '\t');) {
            parts.push_back(part);
        }
        const auto number = static_cast<Slot>(std::stoul(parts.at(1)));
        if (parts[0] == "replace") {
            index.replace(number, parts.at(2));
        } else if (parts[0] == "erase") {
            index.erase(number);
        } else {
            std::vector<TextHit> wanted;
            std::istringstream hits(parts.at(3));
            for (std::string hit; hits >> hit;) {
                const std::size_t colon = hit.find(':');
                wanted.push_back({static_cast<Slot>(std::stoul(hit)), std::strtod(hit.c_str() + colon + 1, nullptr)});
            }
            ASSERT_EQ(index.snapshot().search(parts.at(2), number), wanted) << line;
            ++searches;
        }
    }
    EXPECT_GT(searches, 100U);
}

TEST(Bm25, RefusesWhatItCannotDo) {
    EXPECT_THROW(Bm25Index({-1.0, 0.5}), InvalidArgument);
    EXPECT_THROW(Bm25Index({std::nan(""), 0.5}), InvalidArgument);
    EXPECT_THROW(Bm25Index({1.0, 1.5}), InvalidArgument);
    Bm25Index index;
    EXPECT_THROW(static_cast<void>(index.snapshot().search("a", 0)), InvalidArgument);
    EXPECT_EQ(index.snapshot().search("a", 3), std::vector<TextHit>{});
    index.replace(5, "");
    EXPECT_TRUE(index.snapshot().contains(5));
    EXPECT_EQ(index.snapshot().search("a", 3), std::vector<TextHit>{});
    EXPECT_THROW(index.replace(slot_max + 1, "a"), InvalidArgument);
    const Bm25Batch open = index.begin();
    EXPECT_THROW(static_cast<void>(index.begin()), InvalidArgument);
}

TEST(Bm25, NamesWhatIsWrongWithABuffer) {
    Bm25Index index;
    index.replace(3, "a b a");
    std::vector<std::byte> saved = index.snapshot().save();
    EXPECT_THROW(static_cast<void>(Bm25Index::load({})), UnsupportedFormat);
    for (std::size_t size = 12; size < saved.size(); ++size) {
        EXPECT_THROW(static_cast<void>(Bm25Index::load(std::span(saved).first(size))), Corruption) << size;
    }
    // The last byte is how often "b" is in the document: now there is one token too many.
    saved.back() = std::byte{2};
    EXPECT_THROW(static_cast<void>(Bm25Index::load(saved)), Corruption);
    saved[8] = std::byte{9};
    EXPECT_THROW(static_cast<void>(Bm25Index::load(saved)), UnsupportedFormat);
}

}  // namespace
}  // namespace sage::vdb
