// Gives numpy what the library made. Internal to the extension modules.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <utility>
#include <vector>

namespace sage::bindings {

// Hands the memory of `values` to numpy.
template <class T>
pybind11::array_t<T> into_array(std::vector<T> values, std::vector<pybind11::ssize_t> shape) {
    auto owner = std::make_unique<std::vector<T>>(std::move(values));
    const T* data = owner->data();
    pybind11::capsule base(owner.get(), [](void* pointer) { delete static_cast<std::vector<T>*>(pointer); });
    // Only now: a capsule that could not be made has not taken the memory over.
    static_cast<void>(owner.release());
    return pybind11::array_t<T>(std::move(shape), data, base);
}

void bind_graph_index(pybind11::module_& module);
void bind_index(pybind11::module_& module);
void bind_database(pybind11::module_& module);

}  // namespace sage::bindings
