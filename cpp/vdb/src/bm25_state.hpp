// The versions behind bm25.hpp. Internal.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "persistent/array.hpp"
#include "persistent/posting.hpp"
#include "persistent/ref.hpp"
#include "persistent/text.hpp"
#include "persistent/tree.hpp"
#include "sage/vdb/bm25.hpp"
#include "sage/vdb/tokenizer.hpp"

namespace sage::vdb::detail {

using persistent::Owner;
using persistent::Posting;
using persistent::Ref;
using persistent::TextRef;

// One token in one document.
struct Occurrence {
    std::uint32_t count = 0;
    std::uint32_t length = 0;  // of the document, here so that scoring reads one place
};

// Occurrences of which one gains as much as any of a set, whatever idf and mean length are: more repetition or a shorter
// document gains more, so the ones that no other beats in both suffice. At most four; beyond that two are replaced by one
// that beats both. (Ding and Suel, "Faster top-k document retrieval using block-max indexes", 2011, keep the maximal
// score instead, which does not survive an update.)
struct Impacts {
    std::array<Occurrence, 4> items{};  // both numbers ascend
    std::uint32_t size = 0;

    void add(Occurrence added) {
        for (std::uint32_t i = 0; i < size; ++i) {
            if (items[i].count >= added.count && items[i].length <= added.length) {
                return;
            }
        }
        std::array<Occurrence, 5> kept{};
        std::uint32_t count = 0;
        bool placed = false;
        for (std::uint32_t i = 0; i < size; ++i) {
            if (items[i].count <= added.count && items[i].length >= added.length) {
                continue;
            }
            if (!placed && items[i].count > added.count) {
                kept[count++] = added;
                placed = true;
            }
            kept[count++] = items[i];
        }
        if (!placed) {
            kept[count++] = added;
        }
        if (count > items.size()) {
            count = join_nearest(kept, count);
        }
        std::copy_n(kept.begin(), count, items.begin());
        size = count;
    }

    [[nodiscard]] bool has(Occurrence wanted) const {
        return std::any_of(items.begin(), items.begin() + size, [wanted](const Occurrence& item) {
            return item.count == wanted.count && item.length == wanted.length;
        });
    }

private:
    static std::uint32_t join_nearest(std::array<Occurrence, 5>& all, std::uint32_t count) {
        const auto spread = [&all](std::uint32_t i) {
            return static_cast<double>(all[i + 1].count) / all[i].count * (all[i + 1].length + 1.0) / (all[i].length + 1.0);
        };
        std::uint32_t best = 0;
        for (std::uint32_t i = 1; i + 1 < count; ++i) {
            best = spread(i) < spread(best) ? i : best;
        }
        all[best].count = all[best + 1].count;
        std::copy(all.begin() + best + 2, all.begin() + count, all.begin() + best + 1);
        return count - 1;
    }
};

struct OccurrenceChange {
    Occurrence occurrence;
    bool added = false;
};

struct OccurrenceTraits {
    using Key = Slot;
    using Value = Occurrence;
    using Summary = Impacts;
    using Delta = OccurrenceChange;
    static constexpr std::size_t leaf_capacity = 128;
    static constexpr std::size_t inner_capacity = 32;

    static Impacts summarize(const std::vector<Slot>& /*keys*/, const std::vector<Occurrence>& values) {
        Impacts sum;
        for (const Occurrence& occurrence : values) {
            sum.add(occurrence);
        }
        return sum;
    }
    static void merge(Impacts& sum, const Impacts& part) {
        for (std::uint32_t i = 0; i < part.size; ++i) {
            sum.add(part.items[i]);
        }
    }
    static bool apply(Impacts& sum, const OccurrenceChange& change) {
        if (change.added) {
            sum.add(change.occurrence);
            return true;
        }
        // What another one beats can go without a trace.
        return !sum.has(change.occurrence);
    }
};
using Occurrences = persistent::Tree<OccurrenceTraits>;

struct NameTraits {
    using Key = TextRef;
    using Value = std::uint32_t;
    struct Summary {};
    using Delta = Summary;
    static constexpr std::size_t leaf_capacity = 64;
    static constexpr std::size_t inner_capacity = 32;
    static Summary summarize(const std::vector<Key>& /*keys*/, const std::vector<Value>& /*values*/) { return {}; }
    static void merge(Summary& /*sum*/, const Summary& /*part*/) {}
    static bool apply(Summary& /*sum*/, const Delta& /*delta*/) { return true; }
};

struct Term {
    TextRef name;
    Occurrences occurrences;
};

// What has to be taken out when a document goes.
struct Document : persistent::Node {
    std::vector<std::uint32_t> terms;
    std::uint32_t length = 0;  // tokens
};

struct Bm25State {
    Bm25Options options;
    Posting slots;
    std::uint64_t total_length = 0;
    persistent::Array<Ref<Document>, 6> documents;
    persistent::Array<Term, 4> terms;          // by number
    persistent::Tree<NameTraits> names;        // to numbers
    std::vector<std::uint32_t> free_numbers;  // small: terms seldom vanish, and new ones take these first
    std::uint32_t number_end = 0;

    [[nodiscard]] const Occurrences* find(std::string_view token) const {
        const std::uint32_t* number = names.find(token);
        return number == nullptr ? nullptr : &terms.find(*number)->occurrences;
    }
    [[nodiscard]] double idf(std::size_t found) const {
        return std::log1p((static_cast<double>(slots.count() - found) + 0.5) / (static_cast<double>(found) + 0.5));
    }
};

struct Bm25Shared {
    explicit Bm25Shared(std::shared_ptr<const Bm25State> first) : published(std::move(first)) {}
    persistent::Published<Bm25State> published;
    std::atomic<bool> writing = false;

    // The rest is the writer's alone. Numbers of terms by name: the tree of names is for readers and slower.
    Owner last_owner = persistent::nobody;
    std::unordered_map<std::string_view, std::pair<TextRef, std::uint32_t>> numbers;
    bool numbers_stale = true;  // a batch was dropped: made anew by the next one
    Tokenizer tokenizer;
};

Bm25Options checked(Bm25Options options);

}  // namespace sage::vdb::detail
