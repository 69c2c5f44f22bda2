#include "sage/vdb/index.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "sage/common/error.hpp"
#include "slot_index.hpp"

namespace sage::vdb {
namespace {

// Up to so many bytes flat is no slower than a graph, about. Measured with one_query of index_bench.cpp (AVX-512, rows
// in the cache, float32, k = 10, effort 32; processor time of flat and of graph): 128 dimensions, 1,000 rows (500 KiB)
// 7.2 and 8.2 us, 2,000 rows 14 and 10 us; 1024 dimensions, 250 rows (1,000 KiB) 8.6 and 13.6 us, 500 rows 32 and 27
// us. They meet at some 640 KiB and 1.6 MiB.
constexpr std::size_t flat_bytes_max = std::size_t{1024} * 1024;

constexpr IndexKind all_kinds[] = {IndexKind::automatic, IndexKind::flat, IndexKind::hnsw, IndexKind::ivf_flat,
                                   IndexKind::graph};
constexpr char graph_magic[8] = {'S', 'A', 'G', 'E', 'G', 'R', 'P', 'H'};

// The graph index as an Index.
class GraphAdaptor final : public Index {
public:
    GraphAdaptor(GraphIndex graph, std::string why) : graph_(std::move(graph)), why_(std::move(why)) {}

    void insert(std::span<const Slot> slots, std::span<const float> vectors, std::size_t threads) override {
        graph_.insert(slots, vectors, threads);
    }
    std::size_t remove(std::span<const Slot> slots) override { return graph_.remove(slots); }
    void consolidate(std::size_t threads) override { graph_.consolidate(threads); }
    std::vector<Slot> take_free() override { return graph_.take_free(); }
    using Index::search;
    std::size_t search(std::span<const float> query, std::size_t k, std::size_t effort, Slot* slots, float* scores,
                       const Allowed* allowed) const override {
        return graph_.search(query, k, effort, slots, scores, allowed);
    }
    void search_batch(std::span<const float> queries, std::size_t k, std::size_t effort, Slot* slots, float* scores,
                      std::size_t* counts, std::size_t threads, const Allowed* allowed) const override {
        graph_.search_batch(queries, k, effort, slots, scores, counts, threads, allowed);
    }
    [[nodiscard]] Hits range_search(std::span<const float> query, float radius, std::size_t effort,
                                    const Allowed* allowed) const override {
        return search_until(*this, query, radius, effort, allowed);
    }
    [[nodiscard]] std::size_t effort_for(double recall, std::size_t k) const override {
        return graph_.effort_for(recall, k);
    }
    [[nodiscard]] std::string explain_filter(std::size_t allowed, std::size_t k, std::size_t effort) const override {
        return graph_.explain_filter(allowed, k, effort);
    }
    [[nodiscard]] bool contains(Slot slot) const override { return graph_.contains(slot); }
    bool get(Slot slot, std::span<float> vector) const override { return graph_.get(slot, vector); }
    [[nodiscard]] std::size_t size() const override { return graph_.size(); }
    [[nodiscard]] std::size_t dimension() const noexcept override { return graph_.dimension(); }
    [[nodiscard]] Metric metric() const noexcept override { return graph_.metric(); }
    [[nodiscard]] IndexStats stats() const override {
        const GraphStats graph = graph_.stats();
        IndexStats stats;
        stats.size = graph.size;
        stats.removed = graph.removed;
        stats.links = graph.links;
        stats.memory_bytes = graph.memory_bytes;
        return stats;
    }
    [[nodiscard]] std::string_view name() const noexcept override { return "graph"; }
    [[nodiscard]] std::string explain() const override {
        const GraphStats stats = graph_.stats();
        return "graph: " + why_ + "; " + std::to_string(stats.size) + " vectors, degree " +
               std::to_string(graph_.options().degree) + ", codes of " + std::to_string(stats.code_dimension) +
               " dimensions, " + std::string(row_format_name(graph_.options().rows)) + " rows";
    }
    [[nodiscard]] std::vector<std::byte> save() const override { return graph_.save(); }

private:
    GraphIndex graph_;
    std::string why_;
};

std::string thousands(std::size_t bytes) { return std::to_string((bytes + 1023) / 1024) + " KiB"; }

RowFormat row_format_of(const IndexOptions& options) {
    switch (options.storage) {
        case Storage::float32: return options.graph.rows;
        case Storage::float16: return RowFormat::float16;
        case Storage::bfloat16: return RowFormat::bfloat16;
        default: break;
    }
    throw InvalidArgument("storage must be float32, float16 or bfloat16 for the index graph, whose codes are 8 bits "
                          "anyway, and for auto, which becomes one, got '" +
                          std::string(storage_name(options.storage)) + "' (flat, hnsw and ivf_flat take it)");
}

std::unique_ptr<Index> make_graph(const IndexOptions& options, std::string why) {
    GraphOptions graph = options.graph;
    graph.rows = row_format_of(options);
    return std::make_unique<GraphAdaptor>(GraphIndex(options.dimension, options.metric, graph), std::move(why));
}

Hits hits_of(const Index& index, std::span<const float> query, std::size_t k, std::size_t effort,
             const Allowed* allowed) {
    if (k < 1) {
        throw InvalidArgument("k must be >= 1, got 0");
    }
    const std::size_t room = std::min(k, std::max<std::size_t>(index.size(), 1));
    Hits hits{std::vector<Slot>(room), std::vector<float>(room)};
    const std::size_t count = index.search(query, room, effort, hits.slots.data(), hits.scores.data(), allowed);
    hits.slots.resize(count);
    hits.scores.resize(count);
    return hits;
}

}  // namespace

std::size_t Index::effort_for(double /*recall*/, std::size_t /*k*/) const { return 0; }

std::string Index::explain_filter(std::size_t /*allowed*/, std::size_t /*k*/, std::size_t /*effort*/) const {
    return "the index passes over what is not allowed";
}

Hits Index::search(std::span<const float> query, std::size_t k, std::size_t effort) const {
    return hits_of(*this, query, k, effort, nullptr);
}

Hits Index::search(std::span<const float> query, std::size_t k, std::size_t effort, Allowed allowed) const {
    return hits_of(*this, query, k, effort, &allowed);
}

Hits search_until(const Index& index, std::span<const float> query, float radius, std::size_t effort,
                  const Allowed* allowed) {
    const bool higher = higher_is_better(index.metric());
    const auto outside = [&](float score) { return higher ? !(score >= radius) : !(score <= radius); };
    for (std::size_t k = 64;; k *= 4) {
        Hits hits = hits_of(index, query, k, std::max(effort, k + k / 2), allowed);
        const bool all = hits.slots.size() < k;
        if (all || outside(hits.scores.back())) {
            const auto end = std::find_if(hits.scores.begin(), hits.scores.end(), outside) - hits.scores.begin();
            hits.slots.resize(static_cast<std::size_t>(end));
            hits.scores.resize(static_cast<std::size_t>(end));
            return hits;
        }
    }
}

std::string_view index_kind_name(IndexKind kind) noexcept {
    switch (kind) {
        case IndexKind::automatic: return "auto";
        case IndexKind::flat: return "flat";
        case IndexKind::hnsw: return "hnsw";
        case IndexKind::ivf_flat: return "ivf_flat";
        case IndexKind::graph: return "graph";
    }
    return "unknown";
}

IndexKind index_kind_from_name(std::string_view name) {
    for (const IndexKind kind : all_kinds) {
        if (index_kind_name(kind) == name) {
            return kind;
        }
    }
    throw InvalidArgument("kind must be one of auto, flat, hnsw, ivf_flat, graph, got '" + std::string(name) + "'");
}

std::unique_ptr<Index> make_index(const IndexOptions& options) {
    switch (options.kind) {
        case IndexKind::flat: return make_flat_rows(options, "asked for");
        case IndexKind::hnsw: return make_hnsw_index(options);
        case IndexKind::ivf_flat: return make_ivf_index(options);
        case IndexKind::graph: return make_graph(options, "asked for");
        case IndexKind::automatic: break;
    }
    const std::size_t row_bytes =
        RowCodec(std::max<std::size_t>(options.dimension, 1), options.metric, options.storage).row_bytes();
    const std::string limit = thousands(flat_bytes_max);
    if (options.expected_size != 0 && options.expected_size <= flat_bytes_max / row_bytes) {
        return make_flat_rows(options, "chosen because looking at all " + std::to_string(options.expected_size) +
                                           " expected rows reads " + thousands(options.expected_size * row_bytes) +
                                           ", and up to " + limit + " that is not slower than a graph");
    }
    IndexOptions chosen = options;
    if (options.storage > Storage::bfloat16) {
        chosen.storage = Storage::float32;
    }
    return make_graph(chosen, options.expected_size == 0
                                  ? "chosen because no size is expected, and a graph is fast at any"
                                  : "chosen because looking at all " + std::to_string(options.expected_size) +
                                        " expected rows would read " + thousands(options.expected_size * row_bytes) +
                                        ", and above " + limit + " a graph is faster");
}

std::unique_ptr<Index> load_index(std::span<const std::byte> bytes) {
    if (bytes.size() >= sizeof graph_magic &&
        std::equal(std::begin(graph_magic), std::end(graph_magic), reinterpret_cast<const char*>(bytes.data()))) {
        return std::make_unique<GraphAdaptor>(GraphIndex::load(bytes), "loaded");
    }
    IndexReader in(bytes, saved_index);
    const IndexOptions options = SlotIndex::read_head(in);
    std::unique_ptr<SlotIndex> index;
    switch (options.kind) {
        case IndexKind::flat: index = make_flat_rows(options, "loaded"); break;
        case IndexKind::hnsw: index = make_hnsw_index(options); break;
        case IndexKind::ivf_flat: index = make_ivf_index(options); break;
        default: refuse_bytes("its kind is unknown");
    }
    index->load(in);
    return index;
}

}  // namespace sage::vdb
