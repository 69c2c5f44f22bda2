// The extension module sage.middleware._vdb. Thin: arrays in, the library with the GIL released, arrays out.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "errors.hpp"
#include "outputs.hpp"
#include "sage/common/cpu.hpp"
#include "sage/common/error.hpp"
#include "sage/vdb/flat_index.hpp"

namespace py = pybind11;

namespace sage::bindings {
namespace {

using vdb::FlatIndex;

py::ssize_t signed_size(std::size_t size) { return static_cast<py::ssize_t>(size); }

std::unique_ptr<FlatIndex> make_index(std::int64_t dimension, const std::string& metric) {
    if (dimension < 1) {
        throw InvalidArgument("dimension must be between 1 and " + std::to_string(FlatIndex::dimension_max) +
                              ", got " + std::to_string(dimension));
    }
    return std::make_unique<FlatIndex>(static_cast<std::size_t>(dimension), vdb::metric_from_name(metric));
}

void require_one_id_per_vector(const IdArray& ids, const FloatArray& vectors) {
    if (ids.shape(0) != vectors.shape(0)) {
        throw InvalidArgument("ids and vectors must have the same length, got " + std::to_string(ids.shape(0)) +
                              " ids and " + std::to_string(vectors.shape(0)) + " vectors");
    }
}

void add(FlatIndex& index, const py::object& ids, const py::object& vectors) {
    const IdArray id_values = id_array(ids, "ids");
    const FloatArray rows = vector_array(vectors, "vectors", index.dimension());
    require_one_id_per_vector(id_values, rows);
    const auto id_span = as_span(id_values);
    const auto row_span = as_span(rows);
    const py::gil_scoped_release release;
    index.add(id_span, row_span);
}

void upsert(FlatIndex& index, const py::object& ids, const py::object& vectors) {
    const IdArray id_values = id_array(ids, "ids");
    const FloatArray rows = vector_array(vectors, "vectors", index.dimension());
    require_one_id_per_vector(id_values, rows);
    const auto id_span = as_span(id_values);
    const auto row_span = as_span(rows);
    const py::gil_scoped_release release;
    index.upsert(id_span, row_span);
}

std::size_t remove(FlatIndex& index, const py::object& ids) {
    const IdArray id_values = id_array(ids, "ids");
    const auto id_span = as_span(id_values);
    const py::gil_scoped_release release;
    return index.remove(id_span);
}

void reserve(FlatIndex& index, std::int64_t count) {
    if (count < 0) {
        throw InvalidArgument("count must be >= 0, got " + std::to_string(count));
    }
    const py::gil_scoped_release release;
    index.reserve(static_cast<std::size_t>(count));
}

py::tuple search(const FlatIndex& index, const py::object& queries, std::int64_t k) {
    if (k < 1) {
        throw InvalidArgument("k must be >= 1, got " + std::to_string(k));
    }
    const FloatArray rows = vector_array(queries, "queries", index.dimension());
    const auto row_span = as_span(rows);
    vdb::SearchResult result;
    {
        const py::gil_scoped_release release;
        result = index.search(row_span, static_cast<std::size_t>(k));
    }
    const std::vector<py::ssize_t> shape{signed_size(result.query_count), signed_size(result.per_query)};
    return py::make_tuple(into_array(std::move(result.ids), shape), into_array(std::move(result.scores), shape));
}

py::array_t<float> get(const FlatIndex& index, vdb::Id id) {
    std::vector<float> vector(index.dimension());
    {
        const py::gil_scoped_release release;
        index.get(id, vector);
    }
    const auto size = signed_size(vector.size());
    return into_array(std::move(vector), {size});
}

bool contains(const FlatIndex& index, vdb::Id id) {
    const py::gil_scoped_release release;
    return index.contains(id);
}

std::size_t size(const FlatIndex& index) {
    // Also here: the lock may belong to a long add, and other threads need not wait with us.
    const py::gil_scoped_release release;
    return index.size();
}

py::array_t<vdb::Id> all_ids(const FlatIndex& index) {
    std::vector<vdb::Id> values;
    {
        const py::gil_scoped_release release;
        values = index.ids();
    }
    const auto count = signed_size(values.size());
    return into_array(std::move(values), {count});
}

py::array_t<float> all_vectors(const FlatIndex& index) {
    std::vector<float> values;
    {
        const py::gil_scoped_release release;
        values = index.vectors();
    }
    const auto dimension = signed_size(index.dimension());
    const auto count = signed_size(values.size()) / dimension;
    return into_array(std::move(values), {count, dimension});
}

py::tuple all_rows(const FlatIndex& index) {
    vdb::Rows rows;
    {
        const py::gil_scoped_release release;
        rows = index.rows();
    }
    const auto count = signed_size(rows.ids.size());
    return py::make_tuple(into_array(std::move(rows.ids), {count}),
                          into_array(std::move(rows.vectors), {count, signed_size(index.dimension())}));
}

std::string representation(const FlatIndex& index) {
    return "FlatIndex(dimension=" + std::to_string(index.dimension()) + ", metric='" +
           std::string(vdb::metric_name(index.metric())) + "', size=" + std::to_string(size(index)) + ")";
}

std::string simd_level() { return std::string(simd::level_name(simd::active_level())); }

std::vector<std::string> available_simd_levels() {
    std::vector<std::string> names;
    for (const simd::Level level : simd::available_levels()) {
        names.emplace_back(simd::level_name(level));
    }
    return names;
}

void bind_flat_index(py::module_& module) {
    py::class_<FlatIndex>(module, "FlatIndex", py::is_final(),
                          "Exact nearest-neighbour search over float32 vectors in contiguous memory.\n\n"
                          "Scores: 'cosine' and 'inner_product', higher is better; 'l2' is the squared distance, lower "
                          "is better. Equal scores come in ascending order of id.")
        .def(py::init(&make_index), py::arg("dimension"), py::arg("metric") = "cosine")
        .def("add", &add, py::arg("ids"), py::arg("vectors"), "Adds vectors (n, dimension) under new ids (n).")
        .def("upsert", &upsert, py::arg("ids"), py::arg("vectors"), "Adds new ids, replaces the vectors of known ones.")
        .def("remove", &remove, py::arg("ids"), "Removes ids; returns how many there were.")
        .def("reserve", &reserve, py::arg("count"), "Makes room for count vectors in total.")
        .def("search", &search, py::arg("queries"), py::arg("k"),
             "The best min(k, len(index)) of each query: ids (q, m) int64 and scores (q, m) float32, best first.")
        .def("get", &get, py::arg("id"), "A copy of the vector of id.")
        .def("ids", &all_ids, "A copy of the ids (n), in row order.")
        .def("vectors", &all_vectors, "A copy of the vectors (n, dimension), in row order.")
        .def("rows", &all_rows, "Ids and vectors of the same moment.")
        .def_property_readonly("dimension", &FlatIndex::dimension)
        .def_property_readonly("metric", [](const FlatIndex& index) { return vdb::metric_name(index.metric()); })
        .def("__len__", &size)
        .def("__contains__", &contains, py::arg("id"))
        .def("__repr__", &representation);
}

}  // namespace
}  // namespace sage::bindings

PYBIND11_MODULE(_vdb, module) {
    module.doc() =
        "The native vector indexes of SAGE; see sage/vdb/flat_index.hpp and graph_index.hpp for their guarantees.";
    sage::bindings::register_error_translator();
    sage::bindings::bind_flat_index(module);
    sage::bindings::bind_graph_index(module);
    sage::bindings::bind_index(module);
    sage::bindings::bind_database(module);
    module.def("simd_level", &sage::bindings::simd_level,
               "The instruction set of this process: 'scalar', 'neon', 'avx2' or 'avx512'.");
    module.def("available_simd_levels", &sage::bindings::available_simd_levels,
               "What this build and this CPU offer, slowest first.");
}
