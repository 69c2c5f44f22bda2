// Filters bound to a snapshot: checking, evaluating, estimating.
#include "sage/vdb/filter.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "key_range.hpp"
#include "metadata_state.hpp"
#include "sage/common/error.hpp"

namespace sage::vdb {
namespace {

using detail::Counts;
using detail::Field;
using detail::KeyRange;
using detail::Place;
using detail::place_among_floats;
using detail::place_among_integers;
using detail::place_of_float;
using detail::place_of_integer;
using detail::Posting;
using detail::range_of;
using detail::TextRange;
using detail::TextRef;

constexpr std::string_view prefix_of_errors = "filter: ";

[[noreturn]] void refuse(const std::string& problem) { throw InvalidArgument(std::string(prefix_of_errors) + problem); }

// Levenshtein's distance, for short names.
std::size_t distance_between(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) {
        row[j] = j;
    }
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t above = row[j];
            const auto same = [](char x, char y) { return (x | 0x20) == (y | 0x20); };
            row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (same(a[i - 1], b[j - 1]) ? 0 : 1)});
            diagonal = above;
        }
    }
    return row[b.size()];
}

std::string unknown_field(const MetadataSnapshot& snapshot, std::string_view name) {
    std::vector<std::pair<std::size_t, std::string>> names;
    for (std::string& known : snapshot.field_names()) {
        const std::size_t distance = distance_between(name, known);
        names.emplace_back(distance, std::move(known));
    }
    std::sort(names.begin(), names.end());
    constexpr std::size_t shown = 5;
    const std::size_t far = std::max<std::size_t>(2, name.size() / 3);
    const bool near = !names.empty() && names[0].first <= far;
    std::string text = "unknown metadata field '" + std::string(name) + "'";
    text += names.empty() ? "; no row has any metadata yet" : near ? "; did you mean" : "; there are";
    for (std::size_t i = 0; i < std::min(shown, names.size()); ++i) {
        if (near && names[i].first > std::min(far, names[0].first + 1)) {
            break;
        }
        text += (i > 0 ? ", '" : " '") + names[i].second + "'";
    }
    return text + (!near && names.size() > shown ? ", ..." : "") + (near ? "?" : "");
}

}  // namespace

struct BoundFilter::Node {
    enum class Kind { numbers, texts, text_range, truths, exists, all, any, complement };
    Kind kind = Kind::all;
    const Field* field = nullptr;
    std::vector<KeyRange> ranges;  // numbers: disjoint, ascending
    std::vector<TextRef> texts;    // those that the index has, by address
    TextRange text_range;
    std::array<bool, 2> truths{};
    std::vector<Node> children;
};

namespace {

using BoundNode = BoundFilter::Node;
using Kind = BoundNode::Kind;

// Builds the bound tree.
class Binder {
public:
    Binder(const MetadataSnapshot& snapshot, const detail::MetadataState& state) : snapshot_(snapshot), state_(state) {}

    BoundNode bind(const Filter& filter, std::size_t depth) {
        if (depth > filter_depth_max) {
            refuse("it must nest at most " + std::to_string(filter_depth_max) +
                   " levels deep, got more; and/or take any number of parts on one level");
        }
        if (++nodes_ > filter_nodes_max) {
            refuse("it must have at most " + std::to_string(filter_nodes_max) +
                   " nodes, got more; 'in' takes a list of values");
        }
        BoundNode node;
        switch (filter.op) {
            case FilterOp::all_of:
            case FilterOp::any_of:
            case FilterOp::negate:
                if (filter.op == FilterOp::negate && filter.children.size() != 1) {
                    refuse("'not' takes one operand, got " + std::to_string(filter.children.size()));
                }
                node.kind = filter.op == FilterOp::all_of   ? Kind::all
                            : filter.op == FilterOp::any_of ? Kind::any
                                                            : Kind::complement;
                for (const Filter& child : filter.children) {
                    node.children.push_back(bind(child, depth + 1));
                }
                return node;
            case FilterOp::not_equal: return complement(leaf(filter, FilterOp::equal));
            case FilterOp::not_in: return complement(leaf(filter, FilterOp::in));
            default: return leaf(filter, filter.op);
        }
    }

private:
    static BoundNode complement(BoundNode operand) {
        BoundNode node;
        node.kind = Kind::complement;
        node.children.push_back(std::move(operand));
        return node;
    }

    BoundNode leaf(const Filter& filter, FilterOp op) const {
        BoundNode node;
        node.field = state_.find(filter.field);
        if (node.field == nullptr) {
            refuse(unknown_field(snapshot_, filter.field));
        }
        require_count(filter, op);
        switch (op) {
            case FilterOp::exists: node.kind = Kind::exists; return node;
            case FilterOp::contains:
                require_field(filter, *node.field, FieldType::strings, "; a string field has == and 'starts with'");
                require_string(filter, filter.values[0]);
                bind_texts(node, filter);
                return node;
            case FilterOp::prefix:
                require_field(filter, *node.field, FieldType::string, "");
                require_string(filter, filter.values[0]);
                node.kind = Kind::text_range;
                node.text_range.low = std::get<std::string>(filter.values[0]);
                node.text_range.prefix = true;
                return node;
            default: break;
        }
        switch (node.field->type) {
            case FieldType::int64:
            case FieldType::float64:
            case FieldType::time: bind_numbers(node, filter, op); break;
            case FieldType::string: bind_strings(node, filter, op); break;
            case FieldType::boolean: bind_truths(node, filter, op); break;
            case FieldType::strings:
                refuse("'" + filter.field + "' holds lists of strings, which have 'contains' and 'exists' only, got " +
                       describe(filter));
        }
        return node;
    }

    static void require_count(const Filter& filter, FilterOp op) {
        const std::size_t count = filter.values.size();
        if (op == FilterOp::in) {
            return;
        }
        const std::size_t wanted = op == FilterOp::exists ? 0 : op == FilterOp::between ? 2 : 1;
        if (count != wanted) {
            refuse("an operator on '" + filter.field + "' takes " + std::to_string(wanted) + " values, got " +
                   std::to_string(count) + " in " + describe(filter));
        }
    }
    static void require_field(const Filter& filter, const Field& field, FieldType type, const char* hint) {
        if (field.type != type) {
            refuse(describe(filter) + " needs a field of type " + std::string(field_type_name(type)) + ", but '" +
                   field.name + "' holds " + std::string(field_type_name(field.type)) + " values" + hint);
        }
    }
    static void require_string(const Filter& filter, const Value& value) {
        if (type_of(value) != FieldType::string) {
            refuse("'" + filter.field + "' is compared with strings, got " + std::string(field_type_name(type_of(value))) +
                   " " + describe(value));
        }
    }

    static Place place(const Filter& filter, FieldType type, const Value& value) {
        if (type == FieldType::time && type_of(value) == FieldType::time) {
            return place_of_integer(std::get<Time>(value).microseconds);
        }
        if (type != FieldType::time && type_of(value) == FieldType::int64) {
            const std::int64_t number = std::get<std::int64_t>(value);
            return type == FieldType::int64 ? place_of_integer(number) : place_among_floats(number);
        }
        if (type != FieldType::time && type_of(value) == FieldType::float64) {
            const double number = std::get<double>(value);
            if (std::isnan(number)) {
                refuse("'" + filter.field + "' must not be compared with NaN, which equals nothing");
            }
            return type == FieldType::int64 ? place_among_integers(number) : place_of_float(number);
        }
        refuse("'" + filter.field + "' holds " + std::string(field_type_name(type)) + " values and cannot be compared with " +
               std::string(field_type_name(type_of(value))) + " " + describe(value));
    }

    static void bind_numbers(BoundNode& node, const Filter& filter, FilterOp op) {
        node.kind = Kind::numbers;
        const FieldType type = node.field->type;
        if (op == FilterOp::between) {
            const KeyRange low = range_of(FilterOp::greater_equal, place(filter, type, filter.values[0]));
            const KeyRange high = range_of(FilterOp::less_equal, place(filter, type, filter.values[1]));
            if (low.low <= low.high && high.low <= high.high) {
                node.ranges.push_back({low.low, high.high});
            }
        } else {
            for (const Value& value : filter.values) {
                node.ranges.push_back(range_of(op, place(filter, type, value)));
            }
        }
        std::erase_if(node.ranges, [](const KeyRange& range) { return range.low > range.high; });
        std::sort(node.ranges.begin(), node.ranges.end(),
                  [](const KeyRange& a, const KeyRange& b) { return a.low < b.low; });
        // Points of an 'in' that are equal are one; zeros overlap.
        node.ranges.erase(std::unique(node.ranges.begin(), node.ranges.end(),
                                      [](const KeyRange& a, const KeyRange& b) { return b.low <= a.high; }),
                          node.ranges.end());
    }

    // The strings that the index has: the others are in no slot.
    static void bind_texts(BoundNode& node, const Filter& filter) {
        node.kind = Kind::texts;
        for (const Value& value : filter.values) {
            require_string(filter, value);
            if (const TextRef* known = node.field->text_index.find_key(std::string_view(std::get<std::string>(value)))) {
                node.texts.push_back(*known);
            }
        }
        const auto by_address = [](const TextRef& a, const TextRef& b) { return a.get() < b.get(); };
        std::sort(node.texts.begin(), node.texts.end(), by_address);
        node.texts.erase(std::unique(node.texts.begin(), node.texts.end()), node.texts.end());
    }

    static void bind_strings(BoundNode& node, const Filter& filter, FilterOp op) {
        if (op == FilterOp::equal || op == FilterOp::in) {
            bind_texts(node, filter);
            return;
        }
        for (const Value& value : filter.values) {
            require_string(filter, value);
        }
        node.kind = Kind::text_range;
        TextRange& range = node.text_range;
        const auto& first = std::get<std::string>(filter.values[0]);
        switch (op) {
            case FilterOp::between:
                range.low = first;
                range.high = std::get<std::string>(filter.values[1]);
                break;
            case FilterOp::less:
            case FilterOp::less_equal:
                range.high = first;
                range.high_open = op == FilterOp::less;
                break;
            default:
                range.low = first;
                range.low_open = op == FilterOp::greater;
                break;
        }
    }

    static void bind_truths(BoundNode& node, const Filter& filter, FilterOp op) {
        if (op != FilterOp::equal && op != FilterOp::in) {
            refuse("'" + filter.field + "' holds bool values, which have no order, got " + describe(filter));
        }
        node.kind = Kind::truths;
        for (const Value& value : filter.values) {
            if (type_of(value) != FieldType::boolean) {
                refuse("'" + filter.field + "' holds bool values and cannot be compared with " +
                       std::string(field_type_name(type_of(value))) + " " + describe(value));
            }
            node.truths[std::get<bool>(value) ? 1 : 0] = true;
        }
    }

    const MetadataSnapshot& snapshot_;
    const detail::MetadataState& state_;
    std::size_t nodes_ = 0;
};

// Evaluates a bound tree.
class Evaluator {
public:
    explicit Evaluator(const detail::MetadataState& state)
        : state_(state), slot_end_(state.slots.end()), slot_count_(state.slots.count()) {}

    [[nodiscard]] SlotSet evaluate(const BoundNode& node) const {
        switch (node.kind) {
            case Kind::all: return all(node);
            case Kind::complement: return known().and_not(evaluate(node.children[0]));
            case Kind::any: {
                SlotSet result(slot_end_);
                for (const BoundNode& child : node.children) {
                    result |= evaluate(child);
                }
                return result;
            }
            case Kind::numbers: return numbers(node);
            default: break;
        }
        SlotSet result(slot_end_);
        for_each_posting(node, [&result](const Posting& posting) { posting.add_to(result); });
        return result;
    }

    [[nodiscard]] Selectivity estimate(const BoundNode& node) const {
        switch (node.kind) {
            case Kind::all:
            case Kind::any: return combined(node);
            case Kind::complement: {
                const Selectivity operand = estimate(node.children[0]);
                return {1.0 - operand.fraction, slot_count_ - operand.at_most, slot_count_ - operand.at_least};
            }
            default: break;
        }
        const auto count = static_cast<std::size_t>(counts(node).slots);
        return {slot_count_ == 0 ? 0.0 : static_cast<double>(count) / static_cast<double>(slot_count_), count, count};
    }

    [[nodiscard]] static bool matches(const BoundNode& node, Slot slot) {
        switch (node.kind) {
            case Kind::all:
                return std::all_of(node.children.begin(), node.children.end(),
                                   [slot](const BoundNode& child) { return matches(child, slot); });
            case Kind::any:
                return std::any_of(node.children.begin(), node.children.end(),
                                   [slot](const BoundNode& child) { return matches(child, slot); });
            case Kind::complement: return !matches(node.children[0], slot);
            case Kind::exists: return node.field->present.contains(slot);
            case Kind::truths:
                return (node.truths[0] && node.field->truths[0].contains(slot)) ||
                       (node.truths[1] && node.field->truths[1].contains(slot));
            case Kind::numbers: return node.field->present.contains(slot) && in_ranges(node, node.field->number(slot));
            case Kind::text_range: {
                const TextRef* text = node.field->text(slot);
                return text != nullptr && !node.text_range.before(text->view()) && !node.text_range.after(text->view());
            }
            case Kind::texts: break;
        }
        if (node.field->type == FieldType::string) {
            const TextRef* text = node.field->text(slot);
            return text != nullptr && in_texts(node, *text);
        }
        const detail::TextList* list = node.field->list(slot);
        return list != nullptr && std::any_of(list->items.begin(), list->items.end(),
                                              [&node](const TextRef& text) { return in_texts(node, text); });
    }

private:
    [[nodiscard]] SlotSet known() const {
        SlotSet all(slot_end_);
        state_.slots.add_to(all);
        return all;
    }

    static bool in_ranges(const BoundNode& node, std::int64_t key) {
        const auto above = std::upper_bound(node.ranges.begin(), node.ranges.end(), key,
                                            [](std::int64_t wanted, const KeyRange& range) { return wanted < range.low; });
        return above != node.ranges.begin() && std::prev(above)->contains(key);
    }
    // Equal strings of one field are one object.
    static bool in_texts(const BoundNode& node, const TextRef& text) {
        const auto found =
            std::lower_bound(node.texts.begin(), node.texts.end(), text.get(),
                             [](const TextRef& item, const persistent::Text* wanted) { return item.get() < wanted; });
        return found != node.texts.end() && found->get() == text.get();
    }

    static Counts count_range(const Field& field, const KeyRange& range) {
        return field.number_index.summary([&range](std::int64_t key) { return key < range.low; },
                                          [&range](std::int64_t key) { return key > range.high; });
    }
    // Of a leaf.
    static Counts counts(const BoundNode& node) {
        Counts sum;
        if (node.kind == Kind::numbers) {
            for (const KeyRange& range : node.ranges) {
                detail::IndexTraits<std::int64_t>::merge(sum, count_range(*node.field, range));
            }
        } else if (node.kind == Kind::text_range) {
            sum = node.field->text_index.summary(
                [&node](const TextRef& text) { return node.text_range.before(text.view()); },
                [&node](const TextRef& text) { return node.text_range.after(text.view()); });
        } else {
            for_each_posting(node, [&sum](const Posting& posting) {
                sum.slots += posting.count();
                ++sum.entries;
            });
        }
        return sum;
    }

    template <class Visit>
    static void for_each_posting(const BoundNode& node, Visit&& visit) {
        switch (node.kind) {
            case Kind::exists: visit(node.field->present); break;
            case Kind::truths:
                for (std::size_t truth = 0; truth < 2; ++truth) {
                    if (node.truths[truth]) {
                        visit(node.field->truths[truth]);
                    }
                }
                break;
            case Kind::texts:
                for (const TextRef& text : node.texts) {
                    visit(*node.field->text_index.find(text));
                }
                break;
            case Kind::text_range:
                node.field->text_index.for_each(
                    [&node](const TextRef& text) { return node.text_range.before(text.view()); },
                    [&node](const TextRef& text) { return node.text_range.after(text.view()); },
                    [&visit](const TextRef&, const Posting& posting) { visit(posting); });
                break;
            default:
                for (const KeyRange& range : node.ranges) {
                    node.field->number_index.for_each([&range](std::int64_t key) { return key < range.low; },
                                                      [&range](std::int64_t key) { return key > range.high; },
                                                      [&visit](std::int64_t, const Posting& posting) { visit(posting); });
                }
        }
    }

    // From the index, or, where a range spans very many different values, from the column.
    [[nodiscard]] SlotSet numbers(const BoundNode& node) const {
        SlotSet result(slot_end_);
        constexpr std::int64_t scan_share = 8;
        if (node.ranges.size() != 1 ||
            count_range(*node.field, node.ranges[0]).entries * scan_share < static_cast<std::int64_t>(slot_end_)) {
            for_each_posting(node, [&result](const Posting& posting) { posting.add_to(result); });
            return result;
        }
        const KeyRange range = node.ranges[0];
        const auto low = static_cast<std::uint64_t>(range.low);
        const std::uint64_t width = static_cast<std::uint64_t>(range.high) - low;
        const std::span<std::uint64_t> words = result.words();
        node.field->numbers.for_each_leaf([&](std::size_t first, const auto& items) {
            const std::size_t end = std::min(words.size(), (first + items.size()) / 64);
            for (std::size_t word = first / 64; word < end; ++word) {
                const std::int64_t* item = items.data() + (word * 64 - first);
                std::uint64_t bits = 0;
                for (unsigned bit = 0; bit < 64; ++bit) {
                    bits |= std::uint64_t{static_cast<std::uint64_t>(item[bit]) - low <= width} << bit;
                }
                words[word] = bits;
            }
        });
        SlotSet present(slot_end_);
        node.field->present.add_to(present);
        result &= present;
        return result;
    }

    // The rarest part first; once few slots are left, the other parts are asked slot by slot.
    [[nodiscard]] SlotSet all(const BoundNode& node) const {
        if (node.children.empty()) {
            return known();
        }
        std::vector<std::pair<std::size_t, const BoundNode*>> parts;
        for (const BoundNode& child : node.children) {
            parts.emplace_back(estimate(child).at_most, &child);
        }
        std::stable_sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
        SlotSet result = evaluate(*parts[0].second);
        std::size_t count = result.count();
        for (std::size_t part = 1; part < parts.size() && count > 0; ++part) {
            constexpr std::size_t cost_of_a_match = 64;
            const BoundNode& child = *parts[part].second;
            if (count * cost_of_a_match < parts[part].first) {
                SlotSet kept(slot_end_);
                result.for_each([&kept, &child](Slot slot) {
                    if (matches(child, slot)) {
                        kept.insert(slot);
                    }
                });
                result = std::move(kept);
            } else {
                result &= evaluate(child);
            }
            count = result.count();
        }
        return result;
    }

    [[nodiscard]] Selectivity combined(const BoundNode& node) const {
        const bool conjunction = node.kind == Kind::all;
        // Of "or": what none of the parts takes.
        double rest = 1;
        std::size_t missed = 0;
        Selectivity result;
        result.at_most = conjunction ? slot_count_ : 0;
        for (const BoundNode& child : node.children) {
            const Selectivity part = estimate(child);
            rest *= conjunction ? part.fraction : 1.0 - part.fraction;
            missed += slot_count_ - part.at_least;
            result.at_most = conjunction ? std::min(result.at_most, part.at_most) : result.at_most + part.at_most;
            result.at_least = std::max(result.at_least, part.at_least);
        }
        if (conjunction) {
            result.at_least = slot_count_ - std::min(missed, slot_count_);
        }
        result.at_most = std::min(result.at_most, slot_count_);
        const double n = slot_count_ == 0 ? 1.0 : static_cast<double>(slot_count_);
        // Independence is a guess, the bounds are not.
        result.fraction = std::clamp(conjunction ? rest : 1.0 - rest, static_cast<double>(result.at_least) / n,
                                     static_cast<double>(result.at_most) / n);
        return result;
    }

    const detail::MetadataState& state_;
    std::size_t slot_end_;
    std::size_t slot_count_;
};

}  // namespace

BoundFilter::BoundFilter(MetadataSnapshot snapshot, const Filter& filter)
    : snapshot_(std::move(snapshot)),
      root_(std::make_unique<Node>(Binder(snapshot_, *snapshot_.state_).bind(filter, 1))) {}
BoundFilter::BoundFilter(BoundFilter&&) noexcept = default;
BoundFilter& BoundFilter::operator=(BoundFilter&&) noexcept = default;
BoundFilter::~BoundFilter() = default;

SlotSet BoundFilter::evaluate() const { return Evaluator(*snapshot_.state_).evaluate(*root_); }
Selectivity BoundFilter::estimate() const { return Evaluator(*snapshot_.state_).estimate(*root_); }
bool BoundFilter::matches(Slot slot) const {
    return snapshot_.contains(slot) && Evaluator::matches(*root_, slot);
}

}  // namespace sage::vdb
