// What the bindings of GraphIndex and Index share: everything but how they are made. Internal.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "outputs.hpp"
#include "sage/common/error.hpp"
#include "sage/vdb/graph_index.hpp"

namespace sage::bindings {

namespace py = pybind11;

// A value of 32 bits.
[[nodiscard]] std::uint32_t small(std::int64_t value, const char* name);
[[nodiscard]] std::vector<vdb::Slot> slot_values(const py::object& object);
[[nodiscard]] py::array_t<std::int64_t> slot_array(const std::vector<vdb::Slot>& slots);
[[nodiscard]] std::span<const std::byte> bytes_of(const py::buffer_info& info);

// The words of a bitmap over slots: an array of uint64, or of bool with one entry per slot; None for all.
class SlotFilter {
public:
    explicit SlotFilter(const py::object& object);
    [[nodiscard]] const std::span<const std::uint64_t>* get() const { return words_ ? &span_ : nullptr; }

private:
    std::optional<py::array_t<std::uint64_t, py::array::c_style>> words_;
    std::span<const std::uint64_t> span_;
};

// A vector alone (d), where rows of them (q, d) could be; of another length it is refused.
[[nodiscard]] std::optional<FloatArray> single_query(const py::object& object, std::size_t dimension);

template <class I>
bool has_slot(const I& index, std::int64_t slot) {
    return slot >= 0 && slot <= std::int64_t{vdb::slot_max} && index.contains(static_cast<vdb::Slot>(slot));
}

template <class I>
py::object get_vector(const I& index, std::int64_t slot) {
    std::vector<float> vector(index.dimension());
    if (slot < 0 || slot > std::int64_t{vdb::slot_max} || !index.get(static_cast<vdb::Slot>(slot), vector)) {
        throw NotFound("slot " + std::to_string(slot) + " holds no vector");
    }
    const auto size = static_cast<py::ssize_t>(vector.size());
    return into_array(std::move(vector), {size});
}

template <class I>
void insert_rows(I& index, const py::object& slots, const py::object& vectors, std::int64_t threads) {
    const std::vector<vdb::Slot> places = slot_values(slots);
    const FloatArray rows = vector_array(vectors, "vectors", index.dimension());
    const std::size_t count = at_least(threads, 1, "threads");
    const auto row_span = as_span(rows);
    const py::gil_scoped_release release;
    index.insert(places, row_span, count);
}

template <class I>
std::size_t remove_slots(I& index, const py::object& slots) {
    const std::vector<vdb::Slot> places = slot_values(slots);
    const py::gil_scoped_release release;
    return index.remove(places);
}

template <class I>
void consolidate_index(I& index, std::int64_t threads) {
    const std::size_t count = at_least(threads, 1, "threads");
    const py::gil_scoped_release release;
    index.consolidate(count);
}

// The shortest way: no padding, one dimension.
template <class I>
py::tuple search_one(const I& index, const FloatArray& query, std::size_t k, std::size_t effort,
                     const SlotFilter& filter) {
    constexpr std::size_t room = 128;
    vdb::Slot near[room];
    std::vector<vdb::Slot> far(k > room ? k : 0);
    vdb::Slot* slots = k > room ? far.data() : near;
    py::array_t<float> scores(static_cast<py::ssize_t>(k));
    std::size_t count = 0;
    {
        const auto values = as_span(query);
        float* out = scores.mutable_data();
        const py::gil_scoped_release release;
        count = index.search(values, k, effort, slots, out, filter.get());
    }
    py::array_t<std::int64_t> found(static_cast<py::ssize_t>(count));
    std::copy_n(slots, count, found.mutable_data());
    if (count < k) {
        scores = py::array_t<float>(static_cast<py::ssize_t>(count), scores.data());
    }
    return py::make_tuple(std::move(found), std::move(scores));
}

template <class I>
py::tuple search_index(const I& index, const py::object& queries, std::int64_t k, std::int64_t effort,
                       const py::object& allowed, std::int64_t threads) {
    const std::size_t candidates = at_least(effort, 1, "effort");
    const std::size_t wanted = std::min(at_least(k, 1, "k"), std::max<std::size_t>(index.size(), 1));
    const std::size_t thread_count = at_least(threads, 1, "threads");
    const SlotFilter filter(allowed);
    if (const auto query = single_query(queries, index.dimension())) {
        return search_one(index, *query, wanted, candidates, filter);
    }
    const FloatArray rows = vector_array(queries, "queries", index.dimension());
    const auto row_span = as_span(rows);
    const std::size_t count = row_span.size() / index.dimension();
    std::vector<vdb::Slot> slots(count * wanted);
    std::vector<float> scores(count * wanted);
    std::vector<std::size_t> counts(count);
    std::vector<std::int64_t> found(count * wanted, -1);
    {
        const py::gil_scoped_release release;
        index.search_batch(row_span, wanted, candidates, slots.data(), scores.data(), counts.data(), thread_count,
                           filter.get());
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

template <class I>
py::bytes save_index(const I& index) {
    std::vector<std::byte> bytes;
    {
        const py::gil_scoped_release release;
        bytes = index.save();
    }
    return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

// The methods that both classes have.
template <class I>
void bind_slot_index(py::class_<I>& bound) {
    bound
        .def("insert", &insert_rows<I>, py::arg("slots"), py::arg("vectors"), py::arg("threads") = 1,
             "Adds vectors (n, dimension) under free slots (n).")
        .def("remove", &remove_slots<I>, py::arg("slots"), "Removes slots; returns how many there were.")
        .def("consolidate", &consolidate_index<I>, py::arg("threads") = 1,
             "Does now what is left to do about removed slots.")
        .def(
            "take_free", [](I& index) { return slot_array(index.take_free()); },
            "Removed slots that may be used again since the last call.")
        .def("search", &search_index<I>, py::arg("queries"), py::arg("k"), py::arg("effort") = 64,
             py::arg("allowed") = py::none(), py::arg("threads") = 1,
             "The best of each query: slots int64 and scores float32, best first.")
        .def("get", &get_vector<I>, py::arg("slot"), "The vector of a slot as it is stored.")
        .def("save", &save_index<I>, "The whole index as bytes.")
        .def_property_readonly("dimension", &I::dimension)
        .def_property_readonly("metric", [](const I& index) { return vdb::metric_name(index.metric()); })
        .def("__len__", &I::size)
        .def("__contains__", &has_slot<I>, py::arg("slot"));
}

}  // namespace sage::bindings
