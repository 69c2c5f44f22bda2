// Loads whatever bytes come, and uses what was accepted. libFuzzer's entry point; a plain main() may call it too.
#include <cstddef>
#include <cstdint>
#include <new>
#include <numeric>
#include <span>
#include <vector>

#include "sage/common/error.hpp"
#include "sage/vdb/index.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const auto index = sage::vdb::load_index({reinterpret_cast<const std::byte*>(data), size});
        const std::vector<float> query(index->dimension(), 0.5F);
        static_cast<void>(index->search(query, 5, 20));
        std::vector<sage::vdb::Slot> slots(64);
        std::iota(slots.begin(), slots.end(), sage::vdb::Slot{0});
        static_cast<void>(index->remove(slots));
        index->consolidate();
        static_cast<void>(index->search(query, 5, 20));
        static_cast<void>(sage::vdb::load_index(index->save()));
    } catch (const sage::InvalidArgument&) {
        return 0;
    } catch (const std::bad_alloc&) {
        return 0;
    }
    return 0;
}
