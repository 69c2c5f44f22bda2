#include "targets.hpp"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "sage/common/error.hpp"
#include "sage/vdb/bm25.hpp"
#include "sage/vdb/filter.hpp"
#include "sage/vdb/metadata.hpp"

namespace sage::vdb::fuzz {
namespace {

void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

bool same(std::span<const std::byte> a, const std::vector<std::byte>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

// Bitmaps are as large as the highest slot: not beyond this one here.
constexpr std::size_t slot_end_max = std::size_t{1} << 22;

}  // namespace

void fuzz_filter(std::span<const std::byte> bytes) {
    Filter filter;
    try {
        filter = decode_filter(bytes);
    } catch (const InvalidArgument&) {
        return;
    }
    // One filter has one form.
    require(same(bytes, encode(filter)));
    static_cast<void>(describe(filter));
    static Metadata* const metadata = [] {
        auto* made = new Metadata();
        for (Slot slot = 0; slot < 100; ++slot) {
            made->replace(slot, {{"i", std::int64_t{slot % 7}},
                                 {"f", slot / 8.0},
                                 {"b", slot % 2 == 0},
                                 {"s", std::string(1, static_cast<char>('a' + slot % 5))},
                                 {"l", Strings{"x", std::to_string(slot % 3)}},
                                 {"t", Time{slot}}});
        }
        return made;
    }();
    try {
        const BoundFilter bound(metadata->snapshot(), filter);
        const SlotSet found = bound.evaluate();
        for (Slot slot = 0; slot < 100; ++slot) {
            require(found.contains(slot) == bound.matches(slot));
        }
        const Selectivity estimate = bound.estimate();
        require(estimate.at_least <= found.count() && found.count() <= estimate.at_most);
    } catch (const InvalidArgument&) {
        return;
    }
}

void fuzz_metadata(std::span<const std::byte> bytes) {
    try {
        Metadata loaded = Metadata::load(bytes);
        const MetadataSnapshot before = loaded.snapshot();
        if (before.slot_end() > slot_end_max) {
            return;
        }
        require(same(bytes, before.save()));
        before.slots().for_each([&loaded, &before](Slot slot) {
            require(loaded.snapshot().get(slot).size() == before.get(slot).size());
            require(loaded.erase(slot));
        });
        for (const FieldStats& stats : loaded.snapshot().stats()) {
            require(stats.count == 0 && stats.distinct == 0);
        }
    } catch (const Corruption&) {
        return;
    } catch (const UnsupportedFormat&) {
        return;
    }
}

void fuzz_bm25(std::span<const std::byte> bytes) {
    try {
        Bm25Index loaded = Bm25Index::load(bytes);
        const Bm25Snapshot before = loaded.snapshot();
        const auto hits = before.search("a b c the 0", 5);
        require(hits == before.search_all("a b c the 0", 5));
        for (const TextHit& hit : hits) {
            require(loaded.erase(hit.slot));
        }
        require(loaded.snapshot().size() + hits.size() == before.size());
        if (hits.empty() || hits.back().slot < slot_end_max) {
            loaded.replace(0, "a b c");
        }
    } catch (const Corruption&) {
        return;
    } catch (const UnsupportedFormat&) {
        return;
    }
}

}  // namespace sage::vdb::fuzz
