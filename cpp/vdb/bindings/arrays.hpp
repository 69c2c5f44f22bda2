// Takes what Python callers pass and gives contiguous int64 and float32 arrays. Internal to the extension modules.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace sage::bindings {

using IdArray = pybind11::array_t<std::int64_t, pybind11::array::c_style>;
using FloatArray = pybind11::array_t<float, pybind11::array::c_style>;

// Without a copy when `object` is an aligned, C-contiguous array of the type in native byte order; other integers
// (ids), and float16, float64 and integers (vectors), are converted into a copy. Everything else is InvalidArgument
// naming `name`: wrong number of dimensions, other types, ragged lists.
[[nodiscard]] IdArray id_array(const pybind11::object& object, const char* name);
[[nodiscard]] FloatArray vector_array(const pybind11::object& object, const char* name, std::size_t dimension);

// A count as Python gives it; InvalidArgument below `least`.
[[nodiscard]] std::size_t at_least(std::int64_t value, std::int64_t least, const char* name);

template <class T>
[[nodiscard]] std::span<const T> as_span(const pybind11::array_t<T, pybind11::array::c_style>& array) {
    return {array.data(), static_cast<std::size_t>(array.size())};
}

}  // namespace sage::bindings
