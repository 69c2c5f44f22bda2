// Any bytes as a saved text index: refused, or it can be searched both ways and changed.
#include <span>
#include <string>
#include <vector>

#include "fuzz_target.hpp"
#include "sage/common/error.hpp"
#include "sage/vdb/bm25.hpp"

namespace sage::vdb {
namespace {

using fuzz::require;

// Bitmaps are as large as the highest slot: not beyond this one here.
constexpr std::size_t slot_end_max = std::size_t{1} << 22;

void run(std::span<const std::byte> bytes) {
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

}  // namespace
}  // namespace sage::vdb

sage::fuzz::Inputs sage::fuzz::seeds() {
    using namespace vdb;
    Bm25Index index;
    index.replace(0, "a b c the");
    index.replace(4, "the the 0 and more");
    index.replace(5, "");
    index.replace(300, "c b a");
    return {input_of(index.snapshot().save())};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    sage::vdb::run(std::as_bytes(std::span(data, size)));
    return 0;
}
