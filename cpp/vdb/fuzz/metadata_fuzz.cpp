// Any bytes as saved metadata: refused, or what would be saved again and can be taken apart.
#include <span>
#include <string>
#include <vector>

#include "fuzz_target.hpp"
#include "sage/common/error.hpp"
#include "sage/vdb/metadata.hpp"

namespace sage::vdb {
namespace {

using fuzz::require;
using fuzz::same;

// Bitmaps are as large as the highest slot: not beyond this one here.
constexpr std::size_t slot_end_max = std::size_t{1} << 22;

void run(std::span<const std::byte> bytes) {
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

}  // namespace
}  // namespace sage::vdb

sage::fuzz::Inputs sage::fuzz::seeds() {
    using namespace vdb;
    Metadata metadata;
    for (Slot slot = 0; slot < 12; ++slot) {
        metadata.replace(slot * 3, {{"i", std::int64_t{slot}},
                                    {"f", slot / 3.0},
                                    {"b", slot % 2 == 0},
                                    {"s", std::string(slot % 3, 'x')},
                                    {"l", Strings(slot % 4, std::string(slot % 2, 'y'))},
                                    {"t", Time{slot}}});
    }
    return {input_of(metadata.snapshot().save())};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    sage::vdb::run(std::as_bytes(std::span(data, size)));
    return 0;
}
