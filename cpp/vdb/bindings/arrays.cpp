#include "arrays.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sage/common/error.hpp"

namespace py = pybind11;

namespace sage::bindings {
namespace {

std::string shape_of(const py::array& array) { return py::str(array.attr("shape")).cast<std::string>(); }

py::array any_array(const py::object& object, const char* name) {
    if (py::isinstance<py::array>(object)) {
        return py::reinterpret_borrow<py::array>(object);
    }
    try {
        return py::module_::import("numpy").attr("asarray")(object).cast<py::array>();
    } catch (py::error_already_set& error) {
        // numpy refuses ragged lists with a ValueError, and objects that are no sequence of numbers with a TypeError.
        if (error.matches(PyExc_ValueError) || error.matches(PyExc_TypeError)) {
            throw InvalidArgument(std::string(name) + " must be an array or nested lists of one shape, numpy says: " +
                                  py::str(error.value()).cast<std::string>());
        }
        throw;
    }
}

// Contiguity and type are pybind11's to check; the alignment is not.
template <class Array>
bool fits(const py::array& array) {
    return Array::check_(array) &&
           reinterpret_cast<std::uintptr_t>(array.data()) % alignof(typename Array::value_type) == 0;
}

py::object converted(const py::array& array, const char* dtype) {
    const py::module_ numpy = py::module_::import("numpy");
    // A float64 beyond the range of float32 becomes infinite and is refused by name later; numpy's warning about it
    // would say less.
    const py::object quiet = numpy.attr("errstate")(py::arg("over") = "ignore");
    quiet.attr("__enter__")();
    py::object out;
    try {
        out = numpy.attr("array")(array, py::arg("dtype") = dtype, py::arg("order") = "C", py::arg("copy") = true);
    } catch (...) {
        quiet.attr("__exit__")(py::none(), py::none(), py::none());
        throw;
    }
    quiet.attr("__exit__")(py::none(), py::none(), py::none());
    return out;
}

std::string dtype_of(const py::array& array) { return py::str(array.dtype()).cast<std::string>(); }

}  // namespace

IdArray id_array(const py::object& object, const char* name) {
    const py::array array = any_array(object, name);
    if (array.ndim() != 1) {
        throw InvalidArgument(std::string(name) + " must have one dimension, got shape " + shape_of(array));
    }
    if (fits<IdArray>(array)) {
        return py::reinterpret_borrow<IdArray>(array);
    }
    const char kind = array.dtype().kind();
    // An empty list has the type float64 in numpy and holds no id that could be wrong.
    const bool empty_list = array.size() == 0 && kind == 'f';
    if (kind != 'i' && kind != 'u' && !empty_list) {
        throw InvalidArgument(std::string(name) + " must be integers that fit into int64, got dtype " +
                              dtype_of(array));
    }
    if (kind == 'u' && array.itemsize() == 8 && array.size() > 0) {
        const auto highest = array.attr("max")().attr("item")().cast<std::uint64_t>();
        if (highest > static_cast<std::uint64_t>(INT64_MAX)) {
            throw InvalidArgument(std::string(name) + " must be integers that fit into int64, got " +
                                  std::to_string(highest));
        }
    }
    return converted(array, "int64").cast<IdArray>();
}

FloatArray vector_array(const py::object& object, const char* name, std::size_t dimension) {
    const py::array array = any_array(object, name);
    // An empty list stands for no vectors at all.
    if (array.ndim() == 1 && array.size() == 0) {
        const std::vector<py::ssize_t> shape{0, static_cast<py::ssize_t>(dimension)};
        return FloatArray(shape);
    }
    if (array.ndim() != 2 || static_cast<std::size_t>(array.shape(1)) != dimension) {
        const std::string_view hint = array.ndim() == 1 ? "; one vector alone is passed as vector[None, :]" : "";
        throw InvalidArgument(std::string(name) + " must have shape (n, " + std::to_string(dimension) + "), got " +
                              shape_of(array) + std::string(hint));
    }
    if (fits<FloatArray>(array)) {
        return py::reinterpret_borrow<FloatArray>(array);
    }
    const char kind = array.dtype().kind();
    if (kind != 'f' && kind != 'i' && kind != 'u') {
        throw InvalidArgument(std::string(name) + " must be real numbers, got dtype " + dtype_of(array));
    }
    return converted(array, "float32").cast<FloatArray>();
}

std::size_t at_least(std::int64_t value, std::int64_t least, const char* name) {
    if (value < least) {
        throw InvalidArgument(std::string(name) + " must be >= " + std::to_string(least) + ", got " +
                              std::to_string(value));
    }
    return static_cast<std::size_t>(value);
}

}  // namespace sage::bindings
