// Whatever bytes are loaded: an InvalidArgument, or an index that can be searched, changed and saved.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <span>
#include <vector>

#include "fuzz_target.hpp"
#include "sage/common/error.hpp"
#include "sage/vdb/graph_index.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace sage::vdb;
    constexpr std::size_t size_max = std::size_t{1} << 18U;
    if (size > size_max) {
        return 0;
    }
    try {
        GraphIndex index = GraphIndex::load(std::as_bytes(std::span(data, size)));
        const std::vector<float> query(index.dimension(), 0.25F);
        std::vector<Slot> there;
        for (Slot slot = 0; slot < size && there.size() < 8; ++slot) {
            if (index.contains(slot)) {
                there.push_back(slot);
            }
        }
        const GraphHits hits = index.search(query, 5, 20);
        const std::vector<std::uint64_t> allowed(4, 0x5555555555555555ULL);
        if (hits.slots.size() > 5 || index.search(query, 3, 8, allowed).slots.size() > 3) {
            std::abort();
        }
        if (index.remove(there) != there.size()) {
            std::abort();
        }
        index.consolidate();
        index.insert(std::vector<Slot>{static_cast<Slot>(size)}, query);
        if (GraphIndex::load(index.save()).size() != index.size()) {
            std::abort();
        }
    } catch (const sage::InvalidArgument&) {
        return 0;
    }
    return 0;
}

// Empty, small, and large enough to have codes and links; each also with removed slots.
sage::fuzz::Inputs sage::fuzz::seeds() {
    Inputs inputs;
    for (const vdb::Metric metric : {vdb::Metric::l2, vdb::Metric::cosine}) {
        for (const std::size_t count : {0, 40, 1100}) {
            vdb::GraphOptions options;
            options.degree = 8;
            options.build_effort = 16;
            vdb::GraphIndex index(3, metric, options);
            std::vector<vdb::Slot> slots(count);
            std::iota(slots.begin(), slots.end(), vdb::Slot{0});
            std::vector<float> vectors(3 * count);
            for (std::size_t i = 0; i < vectors.size(); ++i) {
                vectors[i] = static_cast<float>(i * 37 % 1009) - 500.5F;
            }
            index.insert(slots, vectors);
            inputs.push_back(input_of(index.save()));
            if (count > 0) {
                index.remove(std::span<const vdb::Slot>(slots).first(3));
                inputs.push_back(input_of(index.save()));
            }
        }
    }
    return inputs;
}
