// sage.middleware._vdb.Index. Thin, like module.cpp.
#include "sage/vdb/index.hpp"

#include <memory>

#include "slot_binding.hpp"

namespace sage::bindings {
namespace {

using vdb::Index;

std::unique_ptr<Index> make_index(std::int64_t dimension, const std::string& metric, const std::string& kind,
                                  std::int64_t expected_size, const std::string& storage,
                                  const std::optional<std::string>& rerank, std::int64_t rerank_factor,
                                  std::int64_t lists, std::int64_t links, std::int64_t build_effort,
                                  std::int64_t degree) {
    vdb::IndexOptions options;
    options.dimension = at_least(dimension, 1, "dimension");
    options.metric = vdb::metric_from_name(metric);
    options.kind = vdb::index_kind_from_name(kind);
    options.expected_size = at_least(expected_size, 0, "expected_size");
    options.storage = vdb::storage_from_name(storage);
    if (rerank) {
        options.rerank = vdb::storage_from_name(*rerank);
    }
    options.rerank_factor = small(rerank_factor, "rerank_factor");
    options.lists = small(lists, "lists");
    options.links = small(links, "links");
    options.build_effort = small(build_effort, "build_effort");
    options.graph.degree = small(degree, "degree");
    return vdb::make_index(options);
}

py::tuple range_search(const Index& index, const py::object& query, double radius, std::int64_t effort,
                       const py::object& allowed) {
    const std::size_t candidates = at_least(effort, 1, "effort");
    const SlotFilter filter(allowed);
    const std::optional<FloatArray> values = single_query(query, index.dimension());
    if (!values) {
        throw InvalidArgument("query must be one vector, a float32 array of shape (" +
                              std::to_string(index.dimension()) + ",)");
    }
    vdb::Hits hits;
    {
        const auto span = as_span(*values);
        const py::gil_scoped_release release;
        hits = index.range_search(span, static_cast<float>(radius), candidates, filter.get());
    }
    const auto size = static_cast<py::ssize_t>(hits.slots.size());
    return py::make_tuple(slot_array(hits.slots), into_array(std::move(hits.scores), {size}));
}

py::dict stats(const Index& index) {
    const vdb::IndexStats stats = index.stats();
    py::dict out;
    out["size"] = stats.size;
    out["removed"] = stats.removed;
    out["memory_bytes"] = stats.memory_bytes;
    out["links"] = stats.links;
    out["lists"] = stats.lists;
    out["levels"] = stats.levels;
    return out;
}

std::unique_ptr<Index> load(const py::buffer& buffer) {
    const py::buffer_info info = buffer.request();
    const auto bytes = bytes_of(info);
    const py::gil_scoped_release release;
    return vdb::load_index(bytes);
}

std::string representation(const Index& index) {
    return "Index(dimension=" + std::to_string(index.dimension()) + ", metric='" +
           std::string(vdb::metric_name(index.metric())) + "', kind='" + std::string(index.name()) +
           "', size=" + std::to_string(index.size()) + ")";
}

}  // namespace

void bind_index(py::module_& module) {
    const vdb::IndexOptions defaults;
    py::class_<Index> bound(
        module, "Index", py::is_final(),
        "Nearest-neighbour search over slots: flat, hnsw, ivf_flat, graph, or what the size asks for.\n\n"
        "Any number of searches and one change run at a time; searches never wait.");
    bound
        .def(py::init(&make_index), py::arg("dimension"), py::arg("metric") = "cosine", py::kw_only(),
             py::arg("kind") = "auto", py::arg("expected_size") = 0, py::arg("storage") = "float32",
             py::arg("rerank") = py::none(), py::arg("rerank_factor") = 0, py::arg("lists") = 0,
             py::arg("links") = defaults.links, py::arg("build_effort") = defaults.build_effort,
             py::arg("degree") = defaults.graph.degree)
        .def("range_search", &range_search, py::arg("query"), py::arg("radius"), py::arg("effort") = 64,
             py::arg("allowed") = py::none(), "All that score at least (l2: at most) radius, best first.")
        .def("stats", &stats, "Counts and sizes by name.")
        .def("explain", &Index::explain, "One sentence: why this kind, and with which numbers.")
        .def_static("load", &load, py::arg("data"), "The index that save() gave as bytes.")
        .def_property_readonly("kind", &Index::name)
        .def("__repr__", &representation);
    bind_slot_index(bound);
}

}  // namespace sage::bindings
