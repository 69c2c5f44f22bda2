#include <algorithm>
#include <cmath>
#include <string>

#include "collection/vector_part.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb::detail {

IndexKind main_kind(const CollectionOptions& options) noexcept {
    return options.index == IndexKind::automatic ? IndexKind::graph : options.index;
}

IndexOptions main_options(const CollectionOptions& options) {
    IndexOptions index;
    index.dimension = options.dimension;
    index.metric = options.metric;
    index.kind = main_kind(options);
    index.storage = options.storage;
    index.rerank = options.rerank;
    index.lists = options.lists;
    index.links = options.links;
    index.build_effort = options.build_effort;
    index.graph = options.graph;
    index.graph.rows = options.storage == Storage::float16    ? RowFormat::float16
                       : options.storage == Storage::bfloat16 ? RowFormat::bfloat16
                                                              : RowFormat::float32;
    return index;
}

std::unique_ptr<Index> make_main(const CollectionOptions& options) { return make_index(main_options(options)); }

std::unique_ptr<Index> load_main(const CollectionOptions& options, std::span<const std::byte> bytes) {
    try {
        std::unique_ptr<Index> index = load_index(bytes);
        if (index->dimension() != options.dimension || index->metric() != options.metric ||
            index->name() != index_kind_name(main_kind(options))) {
            throw Corruption("a collection's index has another kind, dimension or metric than the collection");
        }
        return index;
    } catch (const InvalidArgument& error) {
        throw Corruption(std::string("a collection's index is damaged: ") + error.what());
    }
}

std::size_t effort_for(const Index& index, double recall, std::size_t k) {
    const std::string_view name = index.name();
    if (name == "flat") {
        return 1;
    }
    if (const std::size_t measured = index.effort_for(recall, k); measured != 0) {
        return measured;
    }
    const int step = recall <= 0.9 ? 0 : recall <= 0.95 ? 1 : recall <= 0.99 ? 2 : 3;
    if (name == "ivf_flat") {
        // There are about 2 sqrt(n) lists; so many hold 0.9, 0.95, 0.99 of the best on clustered data.
        static constexpr double shares[] = {0.015, 0.03, 0.12, 0.3};
        const double lists = 2.0 * std::sqrt(static_cast<double>(std::max<std::size_t>(1, index.size())));
        return static_cast<std::size_t>(std::lround(std::max(16.0, lists * shares[step])));
    }
    // Where nothing was measured: candidates of a graph, for 10 answers of clustered data of 128 dimensions. More answers need more than their
    // number, the better they are to be found.
    static constexpr double graph[] = {40, 64, 200, 500};
    static constexpr double hnsw[] = {60, 120, 350, 800};
    const double wanted = name == "hnsw" ? hnsw[step] : graph[step];
    return static_cast<std::size_t>(std::lround(std::max(wanted, static_cast<double>(k) * (1.0 + wanted / 64.0))));
}

}  // namespace sage::vdb::detail
