// sage.middleware._vdb.GraphIndex. Thin, like module.cpp.
#include <memory>

#include "slot_binding.hpp"

namespace sage::bindings {
namespace {

using vdb::GraphIndex;

std::unique_ptr<GraphIndex> make_index(std::int64_t dimension, const std::string& metric, const std::string& rows,
                                       std::int64_t degree, std::int64_t build_effort, double alpha,
                                       std::int64_t code_dimension) {
    vdb::GraphOptions options;
    options.degree = small(degree, "degree");
    options.build_effort = small(build_effort, "build_effort");
    options.alpha = static_cast<float>(alpha);
    options.rows = vdb::row_format_from_name(rows);
    options.code_dimension = small(code_dimension, "code_dimension");
    return std::make_unique<GraphIndex>(at_least(dimension, 1, "dimension"), vdb::metric_from_name(metric), options);
}

py::dict stats(const GraphIndex& index) {
    const vdb::GraphStats stats = index.stats();
    py::dict out;
    out["size"] = stats.size;
    out["removed"] = stats.removed;
    out["links"] = stats.links;
    out["code_dimension"] = stats.code_dimension;
    out["code_energy"] = stats.code_energy;
    out["memory_bytes"] = stats.memory_bytes;
    return out;
}

std::unique_ptr<GraphIndex> load(const py::buffer& buffer) {
    const py::buffer_info info = buffer.request();
    const auto bytes = bytes_of(info);
    const py::gil_scoped_release release;
    return std::make_unique<GraphIndex>(GraphIndex::load(bytes));
}

std::string representation(const GraphIndex& index) {
    return "GraphIndex(dimension=" + std::to_string(index.dimension()) + ", metric='" +
           std::string(vdb::metric_name(index.metric())) + "', size=" + std::to_string(index.size()) + ")";
}

}  // namespace

void bind_graph_index(py::module_& module) {
    const vdb::GraphOptions defaults;
    py::class_<GraphIndex> bound(module, "GraphIndex", py::is_final(),
                                 "Approximate nearest-neighbour search: a graph over 8-bit codes, exact scores of the "
                                 "best.\n\n"
                                 "Any number of searches and one change run at a time; searches never wait.");
    bound
        .def(py::init(&make_index), py::arg("dimension"), py::arg("metric") = "cosine", py::kw_only(),
             py::arg("rows") = "float16", py::arg("degree") = defaults.degree,
             py::arg("build_effort") = defaults.build_effort, py::arg("alpha") = 1.2, py::arg("code_dimension") = 0)
        .def(
            "effort_for",
            [](const GraphIndex& index, double recall, std::int64_t k) {
                if (!(recall > 0.0 && recall <= 1.0)) {
                    throw InvalidArgument("recall must be above 0 and at most 1, got " + std::to_string(recall));
                }
                return index.effort_for(recall, at_least(k, 1, "k"));
            },
            py::arg("recall"), py::arg("k") = 10, "The effort measured to find that share of the best k; 0: not known.")
        .def("stats", &stats, "Counts and sizes by name.")
        .def_static("load", &load, py::arg("data"), "The index that save() gave as bytes.")
        .def("__repr__", &representation);
    bind_slot_index(bound);
}

}  // namespace sage::bindings
