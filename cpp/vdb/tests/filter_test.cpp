#include "sage/vdb/filter.hpp"

#include "metadata_support.hpp"

namespace sage::vdb {
namespace {

using testing::draw;
using testing::expect_error;
using testing::Model;
using testing::ModelRecord;

// Exact comparison of an int and a float, by long double, whose 64 bits of mantissa hold both.
static_assert(std::numeric_limits<long double>::digits >= 64);

long double number(const Value& value) {
    if (const auto* i = std::get_if<std::int64_t>(&value)) {
        return static_cast<long double>(*i);
    }
    if (const auto* d = std::get_if<double>(&value)) {
        return static_cast<long double>(*d);
    }
    return static_cast<long double>(std::get<Time>(value).microseconds);
}

int compare(const Value& a, const Value& b) {
    if (const auto* text = std::get_if<std::string>(&a)) {
        return text->compare(std::get<std::string>(b));
    }
    if (const auto* truth = std::get_if<bool>(&a)) {
        return int{*truth} - int{std::get<bool>(b)};
    }
    return number(a) < number(b) ? -1 : number(a) > number(b) ? 1 : 0;
}

// The meaning, written down once more.
bool holds(const Filter& filter, const ModelRecord& record) {
    const auto any = [](const auto& items, auto&& test) { return std::any_of(items.begin(), items.end(), test); };
    switch (filter.op) {
        case FilterOp::all_of:
            return !any(filter.children, [&](const Filter& child) { return !holds(child, record); });
        case FilterOp::any_of: return any(filter.children, [&](const Filter& child) { return holds(child, record); });
        case FilterOp::negate: return !holds(filter.children[0], record);
        default: break;
    }
    const auto found = record.find(filter.field);
    if (found == record.end()) {
        return filter.op == FilterOp::not_equal || filter.op == FilterOp::not_in;
    }
    const Value& value = found->second;
    const auto is = [&](const Value& wanted) { return compare(value, wanted) == 0; };
    switch (filter.op) {
        case FilterOp::exists: return true;
        case FilterOp::in: return any(filter.values, is);
        case FilterOp::not_in: return !any(filter.values, is);
        case FilterOp::contains: {
            const auto& items = std::get<Strings>(value);
            return any(items, [&](const std::string& item) { return item == std::get<std::string>(filter.values[0]); });
        }
        case FilterOp::prefix: return std::get<std::string>(value).starts_with(std::get<std::string>(filter.values[0]));
        case FilterOp::between: return compare(value, filter.values[0]) >= 0 && compare(value, filter.values[1]) <= 0;
        default: break;
    }
    const int order = compare(value, filter.values[0]);
    switch (filter.op) {
        case FilterOp::equal: return order == 0;
        case FilterOp::not_equal: return order != 0;
        case FilterOp::less: return order < 0;
        case FilterOp::less_equal: return order <= 0;
        case FilterOp::greater: return order > 0;
        default: return order >= 0;
    }
}

Value random_operand(std::mt19937& random, const std::string& field) {
    const bool numeric = field == "year" || field == "big" || field == "price";
    if (!numeric || draw(random, 0, 1) == 0) {
        return testing::random_value(random, field);
    }
    // Of the other kind of number.
    Value other = testing::random_value(random, field == "price" ? "big" : "price");
    return field == "year" && draw(random, 0, 1) == 0 ? Value(2000 + static_cast<double>(draw(random, 0, 60)) / 2) : other;
}

Filter random_leaf(std::mt19937& random) {
    const auto& [name, type] =
        testing::model_fields()[static_cast<std::size_t>(draw(random, 0, static_cast<std::int64_t>(testing::model_fields().size()) - 1))];
    Filter filter;
    filter.field = name;
    if (draw(random, 0, 9) == 0) {
        filter.op = FilterOp::exists;
        return filter;
    }
    if (type == FieldType::strings) {
        filter.op = FilterOp::contains;
        filter.values = {testing::random_text(random)};
        return filter;
    }
    if (type == FieldType::string && draw(random, 0, 4) == 0) {
        filter.op = FilterOp::prefix;
        filter.values = {testing::random_text(random)};
        return filter;
    }
    const std::vector<FilterOp> ordered = {FilterOp::equal,   FilterOp::not_equal,     FilterOp::in,      FilterOp::not_in, FilterOp::less,
                                           FilterOp::less_equal, FilterOp::greater, FilterOp::greater_equal, FilterOp::between};
    filter.op = ordered[static_cast<std::size_t>(draw(random, 0, type == FieldType::boolean ? 3 : 8))];
    const bool list = filter.op == FilterOp::in || filter.op == FilterOp::not_in;
    const std::int64_t count = list ? draw(random, 0, 5) : filter.op == FilterOp::between ? 2 : 1;
    for (std::int64_t left = count; left > 0; --left) {
        filter.values.push_back(random_operand(random, name));
    }
    return filter;
}

Filter random_filter(std::mt19937& random, int depth) {
    if (depth == 0 || draw(random, 0, 2) == 0) {
        return random_leaf(random);
    }
    Filter filter;
    filter.op = static_cast<FilterOp>(draw(random, static_cast<int>(FilterOp::all_of), static_cast<int>(FilterOp::negate)));
    const std::int64_t count = filter.op == FilterOp::negate ? 1 : draw(random, 0, 3);
    for (std::int64_t left = count; left > 0; --left) {
        filter.children.push_back(random_filter(random, depth - 1));
    }
    return filter;
}

void expect_filter(const MetadataSnapshot& snapshot, const Model& model, const Filter& filter, Slot end) {
    const BoundFilter bound(snapshot, filter);
    const SlotSet found = bound.evaluate();
    std::size_t count = 0;
    for (Slot slot = 0; slot < end; ++slot) {
        const bool wanted = model.contains(slot) && holds(filter, model.at(slot));
        count += wanted ? 1 : 0;
        ASSERT_EQ(found.contains(slot), wanted) << describe(filter) << " in slot " << slot;
        ASSERT_EQ(bound.matches(slot), wanted) << describe(filter) << " in slot " << slot;
    }
    ASSERT_EQ(found.count(), count);
    const Selectivity estimate = bound.estimate();
    ASSERT_LE(estimate.at_least, count) << describe(filter);
    ASSERT_GE(estimate.at_most, count) << describe(filter);
    ASSERT_GE(estimate.fraction, 0.0);
    ASSERT_LE(estimate.fraction, 1.0);
    if (filter.children.empty() && filter.op < FilterOp::all_of) {
        ASSERT_EQ(estimate.at_least, count) << describe(filter);
        ASSERT_EQ(estimate.at_most, count) << describe(filter);
    }
    ASSERT_EQ(decode_filter(encode(filter)), filter);
}

TEST(Filter, MeansWhatTheModelSaysThroughRandomChanges) {
    std::mt19937 random(8);
    constexpr Slot end = 150;
    Metadata metadata;
    Model model;
    {
        // Every field exists, whatever is drawn.
        MetadataBatch batch = metadata.begin();
        Record record;
        for (const auto& [name, type] : testing::model_fields()) {
            record.emplace_back(name, testing::random_value(random, name));
        }
        batch.replace(0, record);
        batch.commit();
        model[0] = ModelRecord(record.begin(), record.end());
    }
    for (int turn = 0; turn < 400; ++turn) {
        MetadataBatch batch = metadata.begin();
        for (int i = 0; i < 10; ++i) {
            testing::change(random, batch, model, end);
        }
        batch.commit();
        for (int i = 0; i < 12; ++i) {
            expect_filter(metadata.snapshot(), model, random_filter(random, 3), end);
        }
    }
}

// Enough slots for bitmaps, scans of columns and the check of few survivors slot by slot.
TEST(Filter, IsTheSameOnEveryPathOfTheEvaluation) {
    std::mt19937 random(9);
    constexpr Slot end = 20'000;
    Metadata metadata;
    Model model;
    MetadataBatch batch = metadata.begin();
    for (Slot slot = 0; slot < end; ++slot) {
        Record record;
        if (draw(random, 0, 9) > 0) {
            record = {{"unique", static_cast<double>(draw(random, -1'000'000, 1'000'000)) / 7},
                      {"rare", std::int64_t{draw(random, 0, 3'000)}},
                      {"half", draw(random, 0, 1) == 1},
                      {"name", std::to_string(draw(random, 0, 100'000))}};
        }
        batch.replace(slot, record);
        model[slot] = ModelRecord(record.begin(), record.end());
    }
    batch.commit();
    for (int turn = 0; turn < 40; ++turn) {
        const double low = static_cast<double>(draw(random, -150'000, 150'000));
        const double width = static_cast<double>(draw(random, 0, 150'000));
        const Filter scan = field("unique").between(low, low + width);
        const Filter rare = field("rare") == std::int64_t{draw(random, 0, 3'000)};
        const Filter digits = field("name").starts_with(std::to_string(draw(random, 0, 99)));
        for (const Filter& filter : {scan, rare && scan, rare && !scan && (field("half") == true), digits || rare, !digits && scan}) {
            expect_filter(metadata.snapshot(), model, filter, end);
        }
    }
}

TEST(Filter, SaysWhatIsWrong) {
    Metadata metadata;
    metadata.replace(0, {{"year", std::int64_t{1}}, {"lang", std::string("en")}, {"on", true}, {"tags", Strings{"a"}}, {"at", Time{5}}});
    const auto refused = [&](const Filter& filter, const std::string& message) {
        expect_error([&] { static_cast<void>(BoundFilter(metadata.snapshot(), filter)); }, "filter: " + message);
    };
    refused(field("yaer") == std::int64_t{1}, "unknown metadata field 'yaer'; did you mean 'year'?");
    refused(field("Lang").exists(), "unknown metadata field 'Lang'; did you mean 'lang'?");
    refused(field("publisher").exists(),
            "unknown metadata field 'publisher'; there are 'lang', 'tags', 'year', 'at', 'on'");
    refused(field("year") == std::string("1"), "'year' holds int values and cannot be compared with string '1'");
    refused(field("year") == true, "'year' holds int values and cannot be compared with bool true");
    refused(field("at") >= std::int64_t{3}, "'at' holds time values and cannot be compared with int 3");
    refused(field("year") < std::nan(""), "'year' must not be compared with NaN, which equals nothing");
    refused(field("on") < true, "'on' holds bool values, which have no order, got on < true");
    refused(field("lang") == std::int64_t{3}, "'lang' is compared with strings, got int 3");
    refused(field("tags") == std::string("a"),
            "'tags' holds lists of strings, which have 'contains' and 'exists' only, got tags == 'a'");
    refused(field("lang").contains("e"),
            "lang contains 'e' needs a field of type list of strings, but 'lang' holds string values; a string field has "
            "== and 'starts with'");
    refused(Filter{FilterOp::negate, {}, {}, {}}, "'not' takes one operand, got 0");
    Filter deep = field("year").exists();
    for (std::size_t i = 0; i < filter_depth_max; ++i) {
        deep = !std::move(deep);
    }
    refused(deep, "it must nest at most 64 levels deep, got more; and/or take any number of parts on one level");
    EXPECT_THROW(static_cast<void>(encode(deep)), InvalidArgument);
    expect_error([] { static_cast<void>(BoundFilter(Metadata().snapshot(), field("x").exists())); },
                 "filter: unknown metadata field 'x'; no row has any metadata yet");
}

TEST(Filter, DescribesItself) {
    EXPECT_EQ(describe((field("year") >= std::int64_t{2020} && !field("lang").in({Value(std::string("de"))})) || field("x").exists()),
              "((year >= 2020 and not lang in ['de']) or x exists)");
    EXPECT_EQ(describe(Filter{}), "true");
}

}  // namespace
}  // namespace sage::vdb
