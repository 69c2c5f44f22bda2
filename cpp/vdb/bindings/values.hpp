// Metadata, ids, texts and filters between Python and the library. Internal to the extension modules. All of it needs
// the GIL.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "arrays.hpp"
#include "sage/vdb/document.hpp"
#include "sage/vdb/filter.hpp"

namespace sage::bindings {

// What errors call a value. It is put together when there is one: every value of every write has such a name.
class ValueName {
public:
    ValueName(const char* text) : text_(text) {}
    ValueName(const std::string& text) : text_(text) {}
    // metadata[3]
    ValueName(std::string_view text, std::size_t place) : text_(text), place_(place) {}
    // metadata[3]['year']; both must live as long.
    ValueName(const ValueName& of, std::string_view field) : text_(field), of_(&of) {}
    [[nodiscard]] std::string str() const;

private:
    std::string_view text_;
    std::optional<std::size_t> place_;
    const ValueName* of_ = nullptr;
};

// What Python's bool, int, float, str, list of str and datetime (with a time zone) mean as a value; numpy's scalars
// likewise. `name` is named in errors.
[[nodiscard]] vdb::Value to_value(pybind11::handle object, const ValueName& name);
[[nodiscard]] pybind11::object from_value(const vdb::Value& value);

[[nodiscard]] vdb::Record to_record(pybind11::handle object, const ValueName& name);
[[nodiscard]] pybind11::dict from_record(const vdb::Record& record);

// None, or one dict or None for each document.
[[nodiscard]] std::vector<vdb::Record> to_records(const pybind11::object& object);
[[nodiscard]] pybind11::list from_records(const std::vector<vdb::Record>& records);

// None, or one str or None for each document.
[[nodiscard]] std::vector<std::optional<std::string>> to_texts(const pybind11::object& object);
[[nodiscard]] std::vector<std::string> to_strings(const pybind11::object& object, const char* name);

[[nodiscard]] vdb::DocumentId to_id(pybind11::handle object, const char* name);

// Ids that a caller passed, held for the length of a call: without a copy where they are an array of int64.
class Ids {
public:
    explicit Ids(const pybind11::object& object, const char* name = "ids");
    [[nodiscard]] vdb::IdSpan span() const;

private:
    std::variant<IdArray, std::vector<std::string>> values_;
};
// An array of int64, or a list of str.
[[nodiscard]] pybind11::object from_ids(vdb::IdList ids);

void bind_filter(pybind11::module_& module);

}  // namespace sage::bindings
