#include "values.hpp"

#include <pybind11/stl.h>

#include <array>
#include <string_view>
#include <utility>

#include "outputs.hpp"
#include "sage/common/error.hpp"

namespace py = pybind11;

namespace sage::bindings {
namespace {

std::string type_name(py::handle object) { return py::str(py::type::of(object).attr("__name__")).cast<std::string>(); }

std::string shown(py::handle object) {
    const auto text = py::repr(object).cast<std::string>();
    constexpr std::size_t longest = 80;
    return text.size() <= longest ? text : text.substr(0, longest) + "...";
}

std::string text_of(py::handle object, const ValueName& name) {
    // Lone surrogates are no text that could be written down; str.encode says so with a UnicodeEncodeError.
    try {
        return object.cast<std::string>();
    } catch (const py::cast_error&) {
        PyErr_Clear();
        throw InvalidArgument(name.str() + " must be text that has a UTF-8 form, got " + shown(object));
    }
}

py::object datetime_attr(const char* name) { return py::module_::import("datetime").attr(name); }

py::object epoch() {
    return datetime_attr("datetime")(1970, 1, 1, py::arg("tzinfo") = datetime_attr("timezone").attr("utc"));
}

vdb::Time to_time(py::handle object, const ValueName& name) {
    if (object.attr("tzinfo").is_none()) {
        throw InvalidArgument(name.str() + " must have a time zone, got " + shown(object) +
                              "; pass datetime(..., tzinfo=timezone.utc)");
    }
    const py::object since = object - epoch();
    const auto days = since.attr("days").cast<std::int64_t>();
    const auto seconds = since.attr("seconds").cast<std::int64_t>();
    return {(days * 86'400 + seconds) * 1'000'000 + since.attr("microseconds").cast<std::int64_t>()};
}

std::int64_t to_int(py::handle object, const ValueName& name) {
    int overflow = 0;
    const std::int64_t value = PyLong_AsLongLongAndOverflow(object.ptr(), &overflow);
    if (overflow != 0) {
        throw InvalidArgument(name.str() + " must fit into 64 bits, got " + shown(object));
    }
    if (value == -1 && PyErr_Occurred() != nullptr) {
        throw py::error_already_set();
    }
    return value;
}

vdb::Strings to_string_list(py::handle object, const ValueName& name) {
    vdb::Strings strings;
    for (const py::handle item : object) {
        if (!py::isinstance<py::str>(item)) {
            throw InvalidArgument(name.str() + " must be a list of str, it has " + shown(item));
        }
        strings.push_back(text_of(item, name));
    }
    return strings;
}

bool is_list(py::handle object) { return py::isinstance<py::list>(object) || py::isinstance<py::tuple>(object); }

}  // namespace

std::string ValueName::str() const {
    if (of_ != nullptr) {
        return of_->str() + "['" + std::string(text_) + "']";
    }
    return std::string(text_) + (place_ ? "[" + std::to_string(*place_) + "]" : "");
}

vdb::Value to_value(py::handle object, const ValueName& name) {
    if (py::isinstance<py::bool_>(object)) {
        return object.cast<bool>();
    }
    if (py::isinstance<py::int_>(object)) {
        return to_int(object, name);
    }
    if (py::isinstance<py::float_>(object)) {
        return object.cast<double>();
    }
    if (py::isinstance<py::str>(object)) {
        return text_of(object, name);
    }
    if (is_list(object)) {
        return to_string_list(object, name);
    }
    if (py::isinstance(object, datetime_attr("datetime"))) {
        return to_time(object, name);
    }
    const py::module_ numpy = py::module_::import("numpy");
    if (py::isinstance(object, numpy.attr("bool_")) || py::isinstance(object, numpy.attr("integer")) ||
        py::isinstance(object, numpy.attr("floating")) || py::isinstance(object, numpy.attr("str_"))) {
        return to_value(object.attr("item")(), name);
    }
    const std::string hint = object.is_none() ? "; leave the field out where it has no value" : "";
    throw InvalidArgument(name.str() + " must be int, float, bool, str, a list of str or a datetime, got " +
                          type_name(object) + " " + shown(object) + hint);
}

py::object from_value(const vdb::Value& value) {
    if (const auto* time = std::get_if<vdb::Time>(&value)) {
        return epoch() + datetime_attr("timedelta")(py::arg("microseconds") = time->microseconds);
    }
    return std::visit(
        [](const auto& some) -> py::object {
            if constexpr (std::is_same_v<std::decay_t<decltype(some)>, vdb::Time>) {
                return py::none();  // not reached
            } else {
                return py::cast(some);
            }
        },
        value);
}

vdb::Record to_record(py::handle object, const ValueName& name) {
    vdb::Record record;
    if (object.is_none()) {
        return record;
    }
    if (!py::isinstance<py::dict>(object)) {
        throw InvalidArgument(name.str() + " must be a dict or None, got " + type_name(object) + " " + shown(object));
    }
    const auto fields = py::reinterpret_borrow<py::dict>(object);
    record.reserve(fields.size());
    for (const auto& [key, value] : fields) {
        if (!py::isinstance<py::str>(key)) {
            throw InvalidArgument("the fields of " + name.str() + " must be named by str, got " + shown(key));
        }
        auto field = text_of(key, "a field's name");
        vdb::Value content = to_value(value, ValueName(name, field));
        record.emplace_back(std::move(field), std::move(content));
    }
    return record;
}

py::dict from_record(const vdb::Record& record) {
    py::dict out;
    for (const auto& [field, value] : record) {
        out[py::str(field)] = from_value(value);
    }
    return out;
}

std::vector<vdb::Record> to_records(const py::object& object) {
    std::vector<vdb::Record> records;
    if (object.is_none()) {
        return records;
    }
    if (!is_list(object)) {
        throw InvalidArgument("metadata must be a list with a dict for each id, got " + type_name(object));
    }
    records.reserve(py::len(object));
    for (const py::handle item : object) {
        records.push_back(to_record(item, ValueName("metadata", records.size())));
    }
    return records;
}

py::list from_records(const std::vector<vdb::Record>& records) {
    py::list out;
    for (const vdb::Record& record : records) {
        out.append(from_record(record));
    }
    return out;
}

std::vector<std::optional<std::string>> to_texts(const py::object& object) {
    std::vector<std::optional<std::string>> texts;
    if (object.is_none()) {
        return texts;
    }
    if (!is_list(object)) {
        throw InvalidArgument("texts must be a list with a str or None for each id, got " + type_name(object));
    }
    for (const py::handle item : object) {
        const ValueName name("texts", texts.size());
        if (item.is_none()) {
            texts.emplace_back();
        } else if (py::isinstance<py::str>(item)) {
            texts.emplace_back(text_of(item, name));
        } else {
            throw InvalidArgument(name.str() + " must be str or None, got " + type_name(item) + " " + shown(item));
        }
    }
    return texts;
}

std::vector<std::string> to_strings(const py::object& object, const char* name) {
    if (!is_list(object)) {
        throw InvalidArgument(std::string(name) + " must be a list of str, got " + type_name(object));
    }
    return to_string_list(object, name);
}

vdb::DocumentId to_id(py::handle object, const char* name) {
    if (py::isinstance<py::str>(object)) {
        return text_of(object, name);
    }
    const py::module_ numpy = py::module_::import("numpy");
    if (py::isinstance(object, numpy.attr("integer"))) {
        return to_int(object.attr("item")(), name);
    }
    if (!py::isinstance<py::bool_>(object) && py::isinstance<py::int_>(object)) {
        return to_int(object, name);
    }
    throw InvalidArgument(std::string(name) + " must be int or str, got " + type_name(object) + " " + shown(object));
}

namespace {

std::variant<IdArray, std::vector<std::string>> id_values(const py::object& object, const char* name) {
    if (py::isinstance<py::str>(object)) {
        throw InvalidArgument(std::string(name) + " must be a list of ids, got the str " + shown(object) +
                              "; one id is passed as [id]");
    }
    py::object listed = object;
    if (py::isinstance<py::array>(object)) {
        const auto array = py::reinterpret_borrow<py::array>(object);
        if (array.dtype().kind() != 'U' && array.dtype().kind() != 'O') {
            return id_array(object, name);
        }
        listed = array.attr("tolist")();
    }
    if (!is_list(listed)) {
        throw InvalidArgument(std::string(name) + " must be a list or an array of ids, got " + type_name(object));
    }
    const auto count = py::len(listed);
    if (count == 0) {
        return IdArray(py::ssize_t{0});
    }
    std::vector<std::string> texts;
    IdArray numbers(static_cast<py::ssize_t>(count));
    std::size_t place = 0;
    std::int64_t* out = numbers.mutable_data();
    for (const py::handle item : listed) {
        vdb::DocumentId id = to_id(item, "an id");
        const bool text = std::holds_alternative<std::string>(id);
        if (place > 0 && text == texts.empty()) {
            throw InvalidArgument("ids must be all int or all str, got " + shown(listed[py::int_(0)]) + " and " +
                                  shown(item));
        }
        if (text) {
            texts.push_back(std::move(std::get<std::string>(id)));
        } else {
            out[place] = std::get<std::int64_t>(id);
        }
        ++place;
    }
    if (!texts.empty()) {
        return texts;
    }
    return numbers;
}

}  // namespace

Ids::Ids(const py::object& object, const char* name) : values_(id_values(object, name)) {}

vdb::IdSpan Ids::span() const {
    if (const auto* numbers = std::get_if<IdArray>(&values_)) {
        return as_span(*numbers);
    }
    return std::span<const std::string>(std::get<std::vector<std::string>>(values_));
}

py::object from_ids(vdb::IdList ids) {
    if (auto* numbers = std::get_if<std::vector<std::int64_t>>(&ids)) {
        const auto count = static_cast<py::ssize_t>(numbers->size());
        return into_array(std::move(*numbers), {count});
    }
    return py::cast(std::get<std::vector<std::string>>(ids));
}

namespace {

using vdb::Filter;
using vdb::FilterOp;

struct NamedOp {
    std::string_view name;
    FilterOp op;
};
constexpr std::array leaf_ops{
    NamedOp{"==", FilterOp::equal},          NamedOp{"!=", FilterOp::not_equal},
    NamedOp{"<", FilterOp::less},            NamedOp{"<=", FilterOp::less_equal},
    NamedOp{">", FilterOp::greater},         NamedOp{">=", FilterOp::greater_equal},
    NamedOp{"between", FilterOp::between},   NamedOp{"in", FilterOp::in},
    NamedOp{"not in", FilterOp::not_in},     NamedOp{"contains", FilterOp::contains},
    NamedOp{"exists", FilterOp::exists},     NamedOp{"starts_with", FilterOp::prefix},
};

Filter make_leaf(const std::string& op, const std::string& field, const py::object& values) {
    if (!is_list(values)) {
        throw InvalidArgument("values must be a list, got " + type_name(values));
    }
    for (const NamedOp& known : leaf_ops) {
        if (known.name == op) {
            Filter filter{known.op, field, {}, {}};
            for (const py::handle value : values) {
                filter.values.push_back(to_value(value, "a value for field '" + field + "'"));
            }
            return filter;
        }
    }
    throw InvalidArgument("unknown comparison '" + op + "'");
}

Filter make_filter(FilterOp op, std::vector<Filter> children) { return {op, "", {}, std::move(children)}; }

py::bytes encoded(const Filter& filter) {
    const auto bytes = vdb::encode(filter);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Filter decoded(const py::bytes& bytes) {
    const std::string_view view = bytes;
    return vdb::decode_filter({reinterpret_cast<const std::byte*>(view.data()), view.size()});
}

}  // namespace

void bind_filter(py::module_& module) {
    py::class_<Filter>(module, "Filter", py::is_final(), "An expression over metadata; see filter.hpp.")
        .def_static("leaf", &make_leaf, py::arg("op"), py::arg("field"), py::arg("values"),
                    "A comparison of a field.")
        .def_static(
            "all_of", [](std::vector<Filter> parts) { return make_filter(FilterOp::all_of, std::move(parts)); },
            py::arg("parts"), "True where all parts are.")
        .def_static(
            "any_of", [](std::vector<Filter> parts) { return make_filter(FilterOp::any_of, std::move(parts)); },
            py::arg("parts"), "True where one of the parts is.")
        .def_static(
            "negate", [](Filter part) { return make_filter(FilterOp::negate, {std::move(part)}); }, py::arg("part"),
            "True where the part is not.")
        .def_static("decode", &decoded, py::arg("data"), "What encode() gave.")
        .def("encode", &encoded, "A versioned binary form.")
        .def("__eq__", [](const Filter& left, const Filter& right) { return left == right; }, py::arg("other"),
             py::is_operator())
        .def("__repr__", [](const Filter& filter) { return vdb::describe(filter); });
}

}  // namespace sage::bindings
