#include "slot_binding.hpp"

namespace sage::bindings {

std::uint32_t small(std::int64_t value, const char* name) {
    if (value < 0 || value > std::int64_t{std::numeric_limits<std::uint32_t>::max()}) {
        throw InvalidArgument(std::string(name) + " is out of range, got " + std::to_string(value));
    }
    return static_cast<std::uint32_t>(value);
}

std::vector<vdb::Slot> slot_values(const py::object& object) {
    const IdArray ids = id_array(object, "slots");
    std::vector<vdb::Slot> slots(static_cast<std::size_t>(ids.size()));
    for (std::size_t i = 0; i < slots.size(); ++i) {
        const std::int64_t id = ids.data()[i];
        if (id < 0 || id > std::int64_t{vdb::slot_max}) {
            throw InvalidArgument("slots must be between 0 and " + std::to_string(vdb::slot_max) + ", got " +
                                  std::to_string(id));
        }
        slots[i] = static_cast<vdb::Slot>(id);
    }
    return slots;
}

py::array_t<std::int64_t> slot_array(const std::vector<vdb::Slot>& slots) {
    const auto size = static_cast<py::ssize_t>(slots.size());
    return into_array(std::vector<std::int64_t>(slots.begin(), slots.end()), {size});
}

std::span<const std::byte> bytes_of(const py::buffer_info& info) {
    if (info.ndim != 1 || info.itemsize != 1 || (info.size > 0 && info.strides[0] != 1)) {
        throw InvalidArgument("data must be contiguous bytes");
    }
    return {static_cast<const std::byte*>(info.ptr), static_cast<std::size_t>(info.size)};
}

SlotFilter::SlotFilter(const py::object& object) {
    if (object.is_none()) {
        return;
    }
    using WordArray = py::array_t<std::uint64_t, py::array::c_style>;
    using BoolArray = py::array_t<bool, py::array::c_style>;
    if (WordArray::check_(object) && py::reinterpret_borrow<WordArray>(object).ndim() == 1) {
        words_ = py::reinterpret_borrow<WordArray>(object);
    } else {
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

std::optional<FloatArray> single_query(const py::object& object, std::size_t dimension) {
    if (!FloatArray::check_(object) || py::reinterpret_borrow<FloatArray>(object).ndim() != 1) {
        return std::nullopt;
    }
    auto query = py::reinterpret_borrow<FloatArray>(object);
    if (static_cast<std::size_t>(query.size()) != dimension) {
        throw InvalidArgument("a query must have the dimension " + std::to_string(dimension) + ", got " +
                              std::to_string(query.size()));
    }
    return query;
}

}  // namespace sage::bindings
