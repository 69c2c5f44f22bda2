// sage.middleware._vdb.Index. Thin, like module.cpp.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
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
#include "sage/vdb/index.hpp"

namespace py = pybind11;

namespace sage::bindings {
namespace {

using vdb::Allowed;
using vdb::Index;
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

std::vector<Slot> slot_values(const py::object& object) {
    const IdArray ids = id_array(object, "slots");
    std::vector<Slot> slots(static_cast<std::size_t>(ids.size()));
    for (std::size_t i = 0; i < slots.size(); ++i) {
        const std::int64_t id = ids.data()[i];
        if (id < 0 || id > std::int64_t{vdb::GraphIndex::slot_max}) {
            throw InvalidArgument("slots must be between 0 and " + std::to_string(vdb::GraphIndex::slot_max) +
                                  ", got " + std::to_string(id));
        }
        slots[i] = static_cast<Slot>(id);
    }
    return slots;
}

void insert(Index& index, const py::object& slots, const py::object& vectors, std::int64_t threads) {
    const std::vector<Slot> places = slot_values(slots);
    const FloatArray rows = vector_array(vectors, "vectors", index.dimension());
    const std::size_t count = at_least(threads, 1, "threads");
    const auto row_span = as_span(rows);
    const py::gil_scoped_release release;
    index.insert(places, row_span, count);
}

std::size_t remove(Index& index, const py::object& slots) {
    const std::vector<Slot> places = slot_values(slots);
    const py::gil_scoped_release release;
    return index.remove(places);
}

void consolidate(Index& index, std::int64_t threads) {
    const std::size_t count = at_least(threads, 1, "threads");
    const py::gil_scoped_release release;
    index.consolidate(count);
}

py::array_t<std::int64_t> slot_array(const std::vector<Slot>& slots) {
    const auto size = static_cast<py::ssize_t>(slots.size());
    return into_array(std::vector<std::int64_t>(slots.begin(), slots.end()), {size});
}

py::array_t<std::int64_t> take_free(Index& index) { return slot_array(index.take_free()); }

// The words of a bitmap over slots: an array of uint64, or of bool with one entry per slot.
class Filter {
public:
    explicit Filter(const py::object& object) {
        if (object.is_none()) {
            return;
        }
        if (WordArray::check_(object) && py::reinterpret_borrow<WordArray>(object).ndim() == 1) {
            words_ = py::reinterpret_borrow<WordArray>(object);
        } else {
            using BoolArray = py::array_t<bool, py::array::c_style>;
            if (!BoolArray::check_(object) || py::reinterpret_borrow<BoolArray>(object).ndim() != 1) {
                throw InvalidArgument("allowed must be an array of bool, one per slot, or of uint64, one per 64 slots");
            }
            const auto flags = py::reinterpret_borrow<BoolArray>(object);
            const py::ssize_t count = (flags.size() + 63) / 64;
            words_ = WordArray(count);
            std::uint64_t* out = words_->mutable_data();
            std::fill(out, out + count, 0);
            for (py::ssize_t i = 0; i < flags.size(); ++i) {
                out[i / 64] |= std::uint64_t{flags.data()[i]} << (i % 64);
            }
        }
        span_ = as_span(*words_);
    }
    [[nodiscard]] const Allowed* get() const { return words_ ? &span_ : nullptr; }

private:
    std::optional<WordArray> words_;
    Allowed span_;
};

// A vector alone (d) or rows of them (q, d).
bool is_single(const py::object& object) {
    return FloatArray::check_(object) && py::reinterpret_borrow<FloatArray>(object).ndim() == 1;
}

FloatArray single_query(const Index& index, const py::object& object) {
    auto query = py::reinterpret_borrow<FloatArray>(object);
    if (static_cast<std::size_t>(query.size()) != index.dimension()) {
        throw InvalidArgument("a query must have the dimension " + std::to_string(index.dimension()) + ", got " +
                              std::to_string(query.size()));
    }
    return query;
}

py::tuple search(const Index& index, const py::object& queries, std::int64_t k, std::int64_t effort,
                 const py::object& allowed, std::int64_t threads) {
    const std::size_t candidates = at_least(effort, 1, "effort");
    const std::size_t wanted = std::min(at_least(k, 1, "k"), std::max<std::size_t>(index.size(), 1));
    const std::size_t thread_count = at_least(threads, 1, "threads");
    const Filter filter(allowed);
    const bool single = is_single(queries);
    const FloatArray rows = single ? single_query(index, queries) : vector_array(queries, "queries", index.dimension());
    const std::size_t count = single ? 1 : static_cast<std::size_t>(rows.shape(0));
    std::vector<Slot> slots(count * wanted);
    std::vector<float> scores(count * wanted);
    std::vector<std::size_t> counts(count);
    {
        const auto values = as_span(rows);
        const py::gil_scoped_release release;
        if (single) {
            counts[0] = index.search(values, wanted, candidates, slots.data(), scores.data(), filter.get());
        } else {
            index.search_batch(values, wanted, candidates, slots.data(), scores.data(), counts.data(), thread_count,
                               filter.get());
        }
    }
    if (single) {
        slots.resize(counts[0]);
        scores.resize(counts[0]);
        const auto size = static_cast<py::ssize_t>(counts[0]);
        return py::make_tuple(slot_array(slots), into_array(std::move(scores), {size}));
    }
    std::vector<std::int64_t> found(slots.begin(), slots.end());
    for (std::size_t q = 0; q < count; ++q) {
        for (std::size_t i = counts[q]; i < wanted; ++i) {
            found[q * wanted + i] = -1;
            scores[q * wanted + i] = std::numeric_limits<float>::quiet_NaN();
        }
    }
    const std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(count), static_cast<py::ssize_t>(wanted)};
    return py::make_tuple(into_array(std::move(found), shape), into_array(std::move(scores), shape));
}

py::tuple range_search(const Index& index, const py::object& query, double radius, std::int64_t effort,
                       const py::object& allowed) {
    const std::size_t candidates = at_least(effort, 1, "effort");
    const Filter filter(allowed);
    if (!is_single(query)) {
        throw InvalidArgument("query must be one vector, a float32 array of shape (" +
                              std::to_string(index.dimension()) + ",)");
    }
    const FloatArray values = single_query(index, query);
    vdb::Hits hits;
    {
        const auto span = as_span(values);
        const py::gil_scoped_release release;
        hits = index.range_search(span, static_cast<float>(radius), candidates, filter.get());
    }
    const auto size = static_cast<py::ssize_t>(hits.slots.size());
    return py::make_tuple(slot_array(hits.slots), into_array(std::move(hits.scores), {size}));
}

py::object get(const Index& index, std::int64_t slot) {
    std::vector<float> vector(index.dimension());
    if (slot < 0 || slot > std::int64_t{vdb::GraphIndex::slot_max} || !index.get(static_cast<Slot>(slot), vector)) {
        throw NotFound("slot " + std::to_string(slot) + " holds no vector");
    }
    const auto size = static_cast<py::ssize_t>(vector.size());
    return into_array(std::move(vector), {size});
}

bool contains(const Index& index, std::int64_t slot) {
    return slot >= 0 && slot <= std::int64_t{vdb::GraphIndex::slot_max} && index.contains(static_cast<Slot>(slot));
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

py::bytes save(const Index& index) {
    std::vector<std::byte> bytes;
    {
        const py::gil_scoped_release release;
        bytes = index.save();
    }
    return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::unique_ptr<Index> load(const py::buffer& buffer) {
    const py::buffer_info info = buffer.request();
    if (info.ndim != 1 || info.itemsize != 1 || (info.size > 0 && info.strides[0] != 1)) {
        throw InvalidArgument("data must be contiguous bytes");
    }
    const std::span<const std::byte> bytes(static_cast<const std::byte*>(info.ptr),
                                           static_cast<std::size_t>(info.size));
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
    py::class_<Index>(module, "Index", py::is_final(),
                      "Nearest-neighbour search over slots: flat, hnsw, ivf_flat, graph, or what the size asks for.\n\n"
                      "Any number of searches and one change run at a time; searches never wait.")
        .def(py::init(&make_index), py::arg("dimension"), py::arg("metric") = "cosine", py::kw_only(),
             py::arg("kind") = "auto", py::arg("expected_size") = 0, py::arg("storage") = "float32",
             py::arg("rerank") = py::none(), py::arg("rerank_factor") = 0, py::arg("lists") = 0,
             py::arg("links") = defaults.links, py::arg("build_effort") = defaults.build_effort,
             py::arg("degree") = defaults.graph.degree)
        .def("insert", &insert, py::arg("slots"), py::arg("vectors"), py::arg("threads") = 1,
             "Adds vectors (n, dimension) under free slots (n).")
        .def("remove", &remove, py::arg("slots"), "Removes slots; returns how many there were.")
        .def("consolidate", &consolidate, py::arg("threads") = 1, "Does now what is left to do about removed slots.")
        .def("take_free", &take_free, "Removed slots that may be used again since the last call.")
        .def("search", &search, py::arg("queries"), py::arg("k"), py::arg("effort") = 64,
             py::arg("allowed") = py::none(), py::arg("threads") = 1,
             "The best of each query: slots int64 and scores float32, best first.")
        .def("range_search", &range_search, py::arg("query"), py::arg("radius"), py::arg("effort") = 64,
             py::arg("allowed") = py::none(), "All that score at least (l2: at most) radius, best first.")
        .def("get", &get, py::arg("slot"), "The vector of a slot as it is stored.")
        .def("stats", &stats, "Counts and sizes by name.")
        .def("explain", &Index::explain, "One sentence: why this kind, and with which numbers.")
        .def("save", &save, "The whole index as bytes.")
        .def_static("load", &load, py::arg("data"), "The index that save() gave as bytes.")
        .def_property_readonly("kind", &Index::name)
        .def_property_readonly("dimension", &Index::dimension)
        .def_property_readonly("metric", [](const Index& index) { return vdb::metric_name(index.metric()); })
        .def("__len__", &Index::size)
        .def("__contains__", &contains, py::arg("slot"))
        .def("__repr__", &representation);
}

}  // namespace sage::bindings
