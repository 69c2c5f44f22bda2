// sage.middleware._vdb.GraphIndex. Thin, like module.cpp.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "outputs.hpp"
#include "sage/common/error.hpp"
#include "sage/vdb/graph_index.hpp"

namespace py = pybind11;

namespace sage::bindings {
namespace {

using vdb::GraphIndex;
using vdb::Slot;
using WordArray = py::array_t<std::uint64_t, py::array::c_style>;

std::size_t at_least(std::int64_t value, std::int64_t least, const char* name) {
    if (value < least) {
        throw InvalidArgument(std::string(name) + " must be >= " + std::to_string(least) + ", got " +
                              std::to_string(value));
    }
    return static_cast<std::size_t>(value);
}

std::uint32_t small(std::int64_t value, const char* name) {
    if (value < 0 || value > std::int64_t{std::numeric_limits<std::uint32_t>::max()}) {
        throw InvalidArgument(std::string(name) + " is out of range, got " + std::to_string(value));
    }
    return static_cast<std::uint32_t>(value);
}

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

std::vector<Slot> slot_values(const py::object& object) {
    const IdArray ids = id_array(object, "slots");
    std::vector<Slot> slots(static_cast<std::size_t>(ids.size()));
    for (std::size_t i = 0; i < slots.size(); ++i) {
        const std::int64_t id = ids.data()[i];
        if (id < 0 || id > std::int64_t{GraphIndex::slot_max}) {
            throw InvalidArgument("slots must be between 0 and " + std::to_string(GraphIndex::slot_max) + ", got " +
                                  std::to_string(id));
        }
        slots[i] = static_cast<Slot>(id);
    }
    return slots;
}

void insert(GraphIndex& index, const py::object& slots, const py::object& vectors, std::int64_t threads) {
    const std::vector<Slot> places = slot_values(slots);
    const FloatArray rows = vector_array(vectors, "vectors", index.dimension());
    const std::size_t count = at_least(threads, 1, "threads");
    const auto row_span = as_span(rows);
    const py::gil_scoped_release release;
    index.insert(places, row_span, count);
}

std::size_t remove(GraphIndex& index, const py::object& slots) {
    const std::vector<Slot> places = slot_values(slots);
    const py::gil_scoped_release release;
    return index.remove(places);
}

void consolidate(GraphIndex& index, std::int64_t threads) {
    const std::size_t count = at_least(threads, 1, "threads");
    const py::gil_scoped_release release;
    index.consolidate(count);
}

py::array_t<std::int64_t> take_free(GraphIndex& index) {
    const std::vector<Slot> slots = index.take_free();
    const auto size = static_cast<py::ssize_t>(slots.size());
    return into_array(std::vector<std::int64_t>(slots.begin(), slots.end()), {size});
}

// The words of a bitmap over slots: an array of uint64, or of bool with one entry per slot.
std::optional<WordArray> allowed_words(const py::object& object) {
    if (object.is_none()) {
        return std::nullopt;
    }
    if (WordArray::check_(object)) {
        auto words = py::reinterpret_borrow<WordArray>(object);
        if (words.ndim() == 1) {
            return words;
        }
    }
    using BoolArray = py::array_t<bool, py::array::c_style>;
    if (!BoolArray::check_(object) || py::reinterpret_borrow<BoolArray>(object).ndim() != 1) {
        throw InvalidArgument("allowed must be an array of bool, one per slot, or of uint64, one per 64 slots");
    }
    const auto flags = py::reinterpret_borrow<BoolArray>(object);
    const py::ssize_t count = (flags.size() + 63) / 64;
    WordArray words(count);
    std::uint64_t* out = words.mutable_data();
    std::fill(out, out + count, 0);
    for (py::ssize_t i = 0; i < flags.size(); ++i) {
        out[i / 64] |= std::uint64_t{flags.data()[i]} << (i % 64);
    }
    return words;
}

// One query alone, the shortest way: no padding, one dimension.
py::tuple search_one(const GraphIndex& index, const FloatArray& query, std::size_t k, std::size_t effort,
                     const std::span<const std::uint64_t>* allowed) {
    constexpr std::size_t room = 128;
    Slot near[room];
    std::vector<Slot> far(k > room ? k : 0);
    Slot* slots = k > room ? far.data() : near;
    py::array_t<float> scores(static_cast<py::ssize_t>(k));
    std::size_t count = 0;
    {
        const auto values = as_span(query);
        float* out = scores.mutable_data();
        const py::gil_scoped_release release;
        count = index.search(values, k, effort, slots, out, allowed);
    }
    py::array_t<std::int64_t> found(static_cast<py::ssize_t>(count));
    std::copy_n(slots, count, found.mutable_data());
    if (count < k) {
        scores = py::array_t<float>(static_cast<py::ssize_t>(count), scores.data());
    }
    return py::make_tuple(std::move(found), std::move(scores));
}

py::tuple search(const GraphIndex& index, const py::object& queries, std::int64_t k, std::int64_t effort,
                 const py::object& allowed, std::int64_t threads) {
    const std::size_t candidates = at_least(effort, 1, "effort");
    const std::size_t wanted = std::min(at_least(k, 1, "k"), std::max<std::size_t>(index.size(), 1));
    const std::optional<WordArray> words = allowed_words(allowed);
    std::span<const std::uint64_t> word_span;
    if (words) {
        word_span = as_span(*words);
    }
    const std::span<const std::uint64_t>* filter = words ? &word_span : nullptr;
    if (FloatArray::check_(queries)) {
        const auto query = py::reinterpret_borrow<FloatArray>(queries);
        if (query.ndim() == 1 && query.size() > 0) {
            return search_one(index, query, wanted, candidates, filter);
        }
    }
    const FloatArray rows = vector_array(queries, "queries", index.dimension());
    const std::size_t thread_count = at_least(threads, 1, "threads");
    const auto row_span = as_span(rows);
    const std::size_t count = row_span.size() / index.dimension();
    std::vector<Slot> slots(count * wanted);
    std::vector<float> scores(count * wanted);
    std::vector<std::size_t> counts(count);
    std::vector<std::int64_t> found(count * wanted, -1);
    {
        const py::gil_scoped_release release;
        index.search_batch(row_span, wanted, candidates, slots.data(), scores.data(), counts.data(), thread_count,
                           filter);
        for (std::size_t i = 0; i < count; ++i) {
            std::copy_n(slots.begin() + static_cast<std::ptrdiff_t>(i * wanted), counts[i],
                        found.begin() + static_cast<std::ptrdiff_t>(i * wanted));
            std::fill_n(scores.begin() + static_cast<std::ptrdiff_t>(i * wanted + counts[i]), wanted - counts[i],
                        std::numeric_limits<float>::quiet_NaN());
        }
    }
    const std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(count), static_cast<py::ssize_t>(wanted)};
    return py::make_tuple(into_array(std::move(found), shape), into_array(std::move(scores), shape));
}

py::object get(const GraphIndex& index, std::int64_t slot) {
    std::vector<float> vector(index.dimension());
    if (slot < 0 || slot > std::int64_t{GraphIndex::slot_max} || !index.get(static_cast<Slot>(slot), vector)) {
        throw NotFound("slot " + std::to_string(slot) + " holds no vector");
    }
    const auto size = static_cast<py::ssize_t>(vector.size());
    return into_array(std::move(vector), {size});
}

bool contains(const GraphIndex& index, std::int64_t slot) {
    return slot >= 0 && slot <= std::int64_t{GraphIndex::slot_max} && index.contains(static_cast<Slot>(slot));
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

py::bytes save(const GraphIndex& index) {
    std::vector<std::byte> bytes;
    {
        const py::gil_scoped_release release;
        bytes = index.save();
    }
    return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::unique_ptr<GraphIndex> load(const py::buffer& buffer) {
    const py::buffer_info info = buffer.request();
    if (info.ndim != 1 || info.itemsize != 1 || (info.size > 0 && info.strides[0] != 1)) {
        throw InvalidArgument("data must be contiguous bytes");
    }
    const std::span<const std::byte> bytes(static_cast<const std::byte*>(info.ptr),
                                           static_cast<std::size_t>(info.size));
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
    py::class_<GraphIndex>(module, "GraphIndex", py::is_final(),
                           "Approximate nearest-neighbour search: a graph over 8-bit codes, exact scores of the "
                           "best.\n\n"
                           "Any number of searches and one change run at a time; searches never wait.")
        .def(py::init(&make_index), py::arg("dimension"), py::arg("metric") = "cosine", py::kw_only(),
             py::arg("rows") = "float16", py::arg("degree") = defaults.degree,
             py::arg("build_effort") = defaults.build_effort, py::arg("alpha") = 1.2, py::arg("code_dimension") = 0)
        .def("insert", &insert, py::arg("slots"), py::arg("vectors"), py::arg("threads") = 1,
             "Adds vectors (n, dimension) under free slots (n).")
        .def("remove", &remove, py::arg("slots"), "Removes slots; returns how many there were.")
        .def("consolidate", &consolidate, py::arg("threads") = 1, "Unlinks all removed slots now.")
        .def("take_free", &take_free, "Removed slots that may be used again since the last call.")
        .def("search", &search, py::arg("queries"), py::arg("k"), py::arg("effort") = 64,
             py::arg("allowed") = py::none(), py::arg("threads") = 1,
             "The best of each query: slots int64 and scores float32, best first.")
        .def(
            "effort_for",
            [](const GraphIndex& index, double recall, std::int64_t k) {
                if (!(recall > 0.0 && recall <= 1.0)) {
                    throw InvalidArgument("recall must be above 0 and at most 1, got " + std::to_string(recall));
                }
                return index.effort_for(recall, at_least(k, 1, "k"));
            },
            py::arg("recall"), py::arg("k") = 10, "The effort measured to find that share of the best k; 0: not known.")
        .def("get", &get, py::arg("slot"), "The vector of a slot as it is stored.")
        .def("stats", &stats, "Counts and sizes by name.")
        .def("save", &save, "The whole index as bytes.")
        .def_static("load", &load, py::arg("data"), "The index that save() gave as bytes.")
        .def_property_readonly("dimension", &GraphIndex::dimension)
        .def_property_readonly("metric", [](const GraphIndex& index) { return vdb::metric_name(index.metric()); })
        .def("__len__", &GraphIndex::size)
        .def("__contains__", &contains, py::arg("slot"))
        .def("__repr__", &representation);
}

}  // namespace sage::bindings
