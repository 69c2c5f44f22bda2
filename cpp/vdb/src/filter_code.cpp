// Filters as values: building, text, binary form.
#include <bit>
#include <cmath>

#include "byte_stream.hpp"
#include "sage/common/error.hpp"
#include "sage/vdb/filter.hpp"

namespace sage::vdb {
namespace {

constexpr std::string_view magic = "SGF";
constexpr std::uint8_t version = 1;
using Reader = ByteReader<InvalidArgument>;

bool is_leaf(FilterOp op) noexcept { return op <= FilterOp::prefix; }

Filter combine(FilterOp op, Filter left, Filter right) {
    // (a && b) && c stays one level deep.
    if (left.op != op) {
        left = Filter{op, {}, {}, {std::move(left)}};
    }
    left.children.push_back(std::move(right));
    return left;
}

std::string_view symbol(FilterOp op) noexcept {
    switch (op) {
        case FilterOp::equal: return "==";
        case FilterOp::not_equal: return "!=";
        case FilterOp::less: return "<";
        case FilterOp::less_equal: return "<=";
        case FilterOp::greater: return ">";
        case FilterOp::greater_equal: return ">=";
        case FilterOp::between: return "between";
        case FilterOp::in: return "in";
        case FilterOp::not_in: return "not in";
        case FilterOp::contains: return "contains";
        case FilterOp::exists: return "exists";
        case FilterOp::prefix: return "starts with";
        case FilterOp::all_of: return "and";
        case FilterOp::any_of: return "or";
        case FilterOp::negate: return "not";
    }
    return "?";
}

void require_depth(std::size_t depth) {
    if (depth > filter_depth_max) {
        throw InvalidArgument("a filter must nest at most " + std::to_string(filter_depth_max) +
                              " levels deep, got more; and/or take any number of parts on one level");
    }
}

std::string text_of(const Filter& filter, std::size_t depth) {
    if (depth > filter_depth_max) {
        return "...";
    }
    if (filter.op == FilterOp::negate) {
        return "not " + (filter.children.empty() ? "()" : text_of(filter.children[0], depth + 1));
    }
    std::string text;
    if (!is_leaf(filter.op)) {
        for (const Filter& child : filter.children) {
            text += (text.empty() ? "" : " " + std::string(symbol(filter.op)) + " ") + text_of(child, depth + 1);
        }
        return filter.children.empty() ? (filter.op == FilterOp::all_of ? "true" : "false") : "(" + text + ")";
    }
    constexpr std::size_t shown = 8;
    for (std::size_t i = 0; i < std::min(shown, filter.values.size()); ++i) {
        text += (i > 0 ? ", " : "") + describe(filter.values[i]);
    }
    text += filter.values.size() > shown ? ", ..." : "";
    const bool list = filter.op == FilterOp::in || filter.op == FilterOp::not_in || filter.op == FilterOp::between;
    return filter.field + " " + std::string(symbol(filter.op)) + (list ? " [" + text + "]" : text.empty() ? "" : " " + text);
}

void write_value(ByteWriter& out, const Value& value) {
    out.u8(static_cast<std::uint8_t>(type_of(value)));
    switch (type_of(value)) {
        case FieldType::int64: out.fixed(std::get<std::int64_t>(value)); break;
        case FieldType::float64: out.fixed(std::get<double>(value)); break;
        case FieldType::boolean: out.u8(std::get<bool>(value) ? 1 : 0); break;
        case FieldType::string: out.text(std::get<std::string>(value)); break;
        case FieldType::time: out.fixed(std::get<Time>(value).microseconds); break;
        case FieldType::strings: {
            const auto& items = std::get<Strings>(value);
            out.varint(items.size());
            for (const std::string& item : items) {
                out.text(item);
            }
            break;
        }
    }
}

void write(ByteWriter& out, const Filter& filter, std::size_t depth) {
    require_depth(depth);
    out.u8(static_cast<std::uint8_t>(filter.op));
    if (!is_leaf(filter.op)) {
        out.varint(filter.children.size());
        for (const Filter& child : filter.children) {
            write(out, child, depth + 1);
        }
        return;
    }
    out.text(filter.field);
    out.varint(filter.values.size());
    for (const Value& value : filter.values) {
        write_value(out, value);
    }
}

struct Budget {
    std::size_t nodes = filter_nodes_max;
    std::size_t values = filter_values_max;
};

Value read_value(Reader& in, Budget& budget) {
    in.require(budget.values > 0, "there are too many values");
    --budget.values;
    switch (static_cast<FieldType>(in.u8())) {
        case FieldType::int64: return in.fixed<std::int64_t>();
        case FieldType::float64: return in.fixed<double>();
        case FieldType::boolean: {
            const std::uint8_t truth = in.u8();
            in.require(truth <= 1, "a bool is neither 0 nor 1");
            return truth == 1;
        }
        case FieldType::string: return std::string(in.text(Metadata::string_bytes_max));
        case FieldType::time: return Time{in.fixed<std::int64_t>()};
        case FieldType::strings: {
            Strings items(in.count(Metadata::list_items_max));
            for (std::string& item : items) {
                in.require(budget.values > 0, "there are too many values");
                --budget.values;
                item = in.text(Metadata::string_bytes_max);
            }
            return items;
        }
    }
    in.fail("a value has an unknown type");
}

Filter read(Reader& in, Budget& budget, std::size_t depth) {
    in.require(depth <= filter_depth_max, "it nests too deep");
    in.require(budget.nodes > 0, "it has too many nodes");
    --budget.nodes;
    Filter filter;
    filter.op = static_cast<FilterOp>(in.u8());
    in.require(filter.op >= FilterOp::equal && filter.op <= FilterOp::negate, "a node has an unknown operator");
    if (!is_leaf(filter.op)) {
        const std::size_t count = in.count(filter_nodes_max);
        for (std::size_t child = 0; child < count; ++child) {
            filter.children.push_back(read(in, budget, depth + 1));
        }
        return filter;
    }
    filter.field = in.text(Metadata::field_name_bytes_max);
    const std::size_t count = in.count(filter_values_max);
    for (std::size_t value = 0; value < count; ++value) {
        filter.values.push_back(read_value(in, budget));
    }
    return filter;
}

}  // namespace

Filter operator&&(Filter left, Filter right) { return combine(FilterOp::all_of, std::move(left), std::move(right)); }
Filter operator||(Filter left, Filter right) { return combine(FilterOp::any_of, std::move(left), std::move(right)); }
Filter operator!(Filter operand) { return {FilterOp::negate, {}, {}, {std::move(operand)}}; }

std::string describe(const Filter& filter) { return text_of(filter, 1); }

std::vector<std::byte> encode(const Filter& filter) {
    ByteWriter out;
    out.raw(magic);
    out.u8(version);
    write(out, filter, 1);
    return out.take();
}

Filter decode_filter(std::span<const std::byte> bytes) {
    Reader in(bytes, "encoded filter");
    in.require(bytes.size() <= filter_bytes_max, "it is too long");
    in.require(bytes.size() >= 4 && in.raw(magic.size()) == magic, "it does not begin as one");
    const std::uint8_t found = in.u8();
    in.require(found == version, "its version is not 1; a newer release wrote it");
    Budget budget;
    Filter filter = read(in, budget, 1);
    in.finish();
    return filter;
}

}  // namespace sage::vdb
