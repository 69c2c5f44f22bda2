// Which slots a search may return, by their metadata.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sage/vdb/metadata.hpp"
#include "sage/vdb/slot_set.hpp"

namespace sage::vdb {

// The numbers are part of the encoding.
enum class FilterOp : std::uint8_t {
    equal = 1,
    not_equal = 2,
    less = 3,
    less_equal = 4,
    greater = 5,
    greater_equal = 6,
    between = 7,  // two values, both included
    in = 8,
    not_in = 9,
    contains = 10,  // a list of strings has this string
    exists = 11,
    prefix = 12,  // a string begins with this one
    all_of = 13,
    any_of = 14,
    negate = 15,
};

// An expression tree. A plain value: nothing is checked before BoundFilter.
struct Filter {
    FilterOp op = FilterOp::all_of;
    std::string field;             // of the leaves, equal to prefix
    std::vector<Value> values;     // as many as op takes
    std::vector<Filter> children;  // all_of and any_of: any number; negate: one

    bool operator==(const Filter&) const = default;
};

// The leaves: field("year") >= 2020, field("lang").in({"en", "de"}), field("tags").contains("x"). int means int64.
class FieldName {
public:
    explicit FieldName(std::string name) : name_(std::move(name)) {}
    [[nodiscard]] Filter operator==(Value value) const { return leaf(FilterOp::equal, {std::move(value)}); }
    [[nodiscard]] Filter operator!=(Value value) const { return leaf(FilterOp::not_equal, {std::move(value)}); }
    [[nodiscard]] Filter operator<(Value value) const { return leaf(FilterOp::less, {std::move(value)}); }
    [[nodiscard]] Filter operator<=(Value value) const { return leaf(FilterOp::less_equal, {std::move(value)}); }
    [[nodiscard]] Filter operator>(Value value) const { return leaf(FilterOp::greater, {std::move(value)}); }
    [[nodiscard]] Filter operator>=(Value value) const { return leaf(FilterOp::greater_equal, {std::move(value)}); }
    [[nodiscard]] Filter between(Value low, Value high) const {
        return leaf(FilterOp::between, {std::move(low), std::move(high)});
    }
    [[nodiscard]] Filter in(std::vector<Value> values) const { return leaf(FilterOp::in, std::move(values)); }
    [[nodiscard]] Filter not_in(std::vector<Value> values) const { return leaf(FilterOp::not_in, std::move(values)); }
    [[nodiscard]] Filter contains(std::string text) const { return leaf(FilterOp::contains, {Value(std::move(text))}); }
    [[nodiscard]] Filter starts_with(std::string text) const { return leaf(FilterOp::prefix, {Value(std::move(text))}); }
    [[nodiscard]] Filter exists() const { return leaf(FilterOp::exists, {}); }

private:
    [[nodiscard]] Filter leaf(FilterOp op, std::vector<Value> values) const { return {op, name_, std::move(values), {}}; }
    std::string name_;
};
[[nodiscard]] inline FieldName field(std::string name) { return FieldName(std::move(name)); }
// They build a tree: both sides are always evaluated.
[[nodiscard]] Filter operator&&(Filter left, Filter right);
[[nodiscard]] Filter operator||(Filter left, Filter right);
[[nodiscard]] Filter operator!(Filter operand);

// Text for people: (year >= 2020 and not lang in ['de']).
[[nodiscard]] std::string describe(const Filter& filter);

// A versioned binary form, for bindings and logs. decode refuses with InvalidArgument what is not one, nests deeper than
// filter_depth_max, has more than filter_nodes_max nodes or filter_values_max values, or is longer than filter_bytes_max.
inline constexpr std::size_t filter_depth_max = 64;
inline constexpr std::size_t filter_nodes_max = 10'000;
inline constexpr std::size_t filter_values_max = 1'000'000;
inline constexpr std::size_t filter_bytes_max = std::size_t{64} << 20;
[[nodiscard]] std::vector<std::byte> encode(const Filter& filter);
[[nodiscard]] Filter decode_filter(std::span<const std::byte> bytes);

// What is known without evaluating. Leaves are exact: the indexes count.
struct Selectivity {
    double fraction = 0;       // of the slots with a record; under "and" and "or" as if the parts were independent
    std::size_t at_least = 0;  // slots: proven bounds
    std::size_t at_most = 0;
};

// A filter that was checked against the fields of one snapshot.
//
// Meaning: a comparison is true only where the field has a value: a slot without one fulfils none of ==, <, <=, >, >=,
// between, in, contains, prefix, exists. "!=", "not in" and "not" are the complement of "==", "in" and the operand among
// the slots that have a record: a slot without the field fulfils them, as in Chroma from 0.5.12 on. Ask for
// field(x).exists() beside them where that is not wanted. all_of() of nothing is true, any_of() of nothing is false.
// Between int and float fields and values numbers compare by their exact value. Strings compare by bytes (UTF-8: by code
// points). Strings and lists differ: == needs a string field, contains a list of strings.
//
// Errors, all InvalidArgument: an unknown field (near names are listed), a value of another type than the field's, an
// order of bools, NaN, a tree beyond the limits above.
//
// Threads: any number may use one.
class BoundFilter {
public:
    BoundFilter(MetadataSnapshot snapshot, const Filter& filter);
    BoundFilter(const BoundFilter&) = delete;
    BoundFilter& operator=(const BoundFilter&) = delete;
    BoundFilter(BoundFilter&&) noexcept;
    BoundFilter& operator=(BoundFilter&&) noexcept;
    ~BoundFilter();

    // The slots that match, with room for snapshot().slot_end() slots at least.
    [[nodiscard]] SlotSet evaluate() const;
    [[nodiscard]] Selectivity estimate() const;
    // Whether this one matches, from the columns: for checking few candidates after a search. False without a record.
    [[nodiscard]] bool matches(Slot slot) const;

    [[nodiscard]] const MetadataSnapshot& snapshot() const noexcept { return snapshot_; }

    struct Node;

private:
    MetadataSnapshot snapshot_;
    std::unique_ptr<Node> root_;
};

}  // namespace sage::vdb
