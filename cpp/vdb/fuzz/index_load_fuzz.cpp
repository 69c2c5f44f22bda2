// Loads whatever bytes come, and uses what was accepted.
#include <cstddef>
#include <cstdint>
#include <new>
#include <numeric>
#include <span>
#include <vector>

#include "fuzz_target.hpp"
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

// A small index of every kind.
sage::fuzz::Inputs sage::fuzz::seeds() {
    Inputs inputs;
    for (const vdb::IndexKind kind : {vdb::IndexKind::flat, vdb::IndexKind::hnsw, vdb::IndexKind::ivf_flat}) {
        for (const vdb::Storage storage : {vdb::Storage::float32, vdb::Storage::int8, vdb::Storage::bit1}) {
            vdb::IndexOptions options;
            options.dimension = 3;
            options.kind = kind;
            options.storage = storage;
            const auto index = vdb::make_index(options);
            // Single bits learn from rows in some number, and have a form of their own before.
            const bool many = storage == vdb::Storage::bit1 && kind != vdb::IndexKind::ivf_flat;
            std::vector<vdb::Slot> slots(many ? 260 : 20);
            std::iota(slots.begin(), slots.end(), vdb::Slot{0});
            std::vector<float> vectors(3 * slots.size());
            for (std::size_t i = 0; i < vectors.size(); ++i) {
                vectors[i] = static_cast<float>(i * 7 % 11) - 5.0F;
            }
            index->insert(slots, vectors);
            index->remove(std::span<const vdb::Slot>(slots).first(1));
            inputs.push_back(input_of(index->save()));
        }
    }
    return inputs;
}
