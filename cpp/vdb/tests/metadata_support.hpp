// Random metadata and the plain model of it.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "sage/common/error.hpp"
#include "sage/vdb/filter.hpp"
#include "sage/vdb/metadata.hpp"

namespace sage::vdb::testing {

using ModelRecord = std::map<std::string, Value>;
using Model = std::map<Slot, ModelRecord>;

inline const std::vector<std::pair<std::string, FieldType>>& model_fields() {
    static const std::vector<std::pair<std::string, FieldType>> fields = {
        {"year", FieldType::int64},  {"big", FieldType::int64},    {"price", FieldType::float64}, {"on", FieldType::boolean},
        {"lang", FieldType::string}, {"tags", FieldType::strings}, {"at", FieldType::time},
    };
    return fields;
}

template <class Random>
std::int64_t draw(Random& random, std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
}

inline std::string random_text(std::mt19937& random) {
    std::string text;
    for (std::int64_t left = draw(random, 0, 3); left > 0; --left) {
        text += static_cast<char>('a' + draw(random, 0, 2));
    }
    return draw(random, 0, 9) == 0 ? text + "\xC3\xA9" : text;
}

// Few values of each kind, the extreme ones among them.
inline Value random_value(std::mt19937& random, const std::string& field) {
    if (field == "year") {
        return draw(random, 2000, 2030);
    }
    if (field == "big") {
        const std::vector<std::int64_t> some = {std::numeric_limits<std::int64_t>::min(),
                                                std::numeric_limits<std::int64_t>::max(),
                                                (std::int64_t{1} << 53) + 1,
                                                (std::int64_t{1} << 62) + 1,
                                                -(std::int64_t{1} << 60) - 1,
                                                -1,
                                                0,
                                                1};
        return some[static_cast<std::size_t>(draw(random, 0, 7))];
    }
    if (field == "price") {
        const std::vector<double> some = {0.0,
                                          -0.0,
                                          std::numeric_limits<double>::infinity(),
                                          -std::numeric_limits<double>::infinity(),
                                          9007199254740992.0,
                                          4611686018427387904.0,
                                          9223372036854775808.0,
                                          std::numeric_limits<double>::denorm_min()};
        const std::int64_t which = draw(random, 0, 31);
        return which < 8 ? some[static_cast<std::size_t>(which)] : static_cast<double>(draw(random, -40, 40)) / 4;
    }
    if (field == "on") {
        return draw(random, 0, 1) == 1;
    }
    if (field == "lang") {
        return random_text(random);
    }
    if (field == "at") {
        return Time{draw(random, -5, 5) * 1'000'000};
    }
    Strings items;
    for (std::int64_t left = draw(random, 0, 3); left > 0; --left) {
        items.push_back(random_text(random));
    }
    return items;
}

inline Record random_record(std::mt19937& random) {
    Record record;
    for (const auto& [name, type] : model_fields()) {
        if (draw(random, 0, 2) > 0) {
            record.emplace_back(name, random_value(random, name));
        }
    }
    return record;
}

// -0.0 and 0.0 differ here.
inline bool identical(const Value& a, const Value& b) {
    const auto* x = std::get_if<double>(&a);
    const auto* y = std::get_if<double>(&b);
    return a == b && (x == nullptr || y == nullptr || std::signbit(*x) == std::signbit(*y));
}

inline void expect_record(const Record& record, const ModelRecord& model) {
    ASSERT_EQ(record.size(), model.size());
    for (const auto& [name, value] : record) {
        ASSERT_TRUE(model.contains(name)) << name;
        ASSERT_TRUE(identical(value, model.at(name))) << name << ": " << describe(value) << " for " << describe(model.at(name));
    }
}

inline void expect_same(const MetadataSnapshot& snapshot, const Model& model, Slot end) {
    ASSERT_EQ(snapshot.size(), model.size());
    ASSERT_EQ(snapshot.slots().count(), model.size());
    for (Slot slot = 0; slot < end; ++slot) {
        ASSERT_EQ(snapshot.contains(slot), model.contains(slot));
        expect_record(snapshot.get(slot), model.contains(slot) ? model.at(slot) : ModelRecord{});
    }
}

// Runs `call`, which must throw Failure with exactly this message.
template <class Failure = InvalidArgument>
void expect_error(const std::function<void()>& call, const std::string& message) {
    try {
        call();
        ADD_FAILURE() << "accepted, expected: " << message;
    } catch (const Failure& error) {
        EXPECT_EQ(error.what(), message);
    }
}

// One random change to both.
inline void change(std::mt19937& random, MetadataBatch& batch, Model& model, Slot end) {
    const auto slot = static_cast<Slot>(draw(random, 0, end - 1));
    const Record record = random_record(random);
    switch (draw(random, 0, 5)) {
        case 0: ASSERT_EQ(batch.erase(slot), model.erase(slot) == 1); break;
        case 1: {
            const std::vector<std::string> names = {"year", "tags", "unknown", "lang"};
            batch.unset(slot, names);
            if (model.contains(slot)) {
                for (const std::string& name : names) {
                    model[slot].erase(name);
                }
            }
            break;
        }
        case 2:
            batch.merge(slot, record);
            for (const auto& [name, value] : record) {
                model[slot][name] = value;
            }
            static_cast<void>(model[slot]);
            break;
        default:
            batch.replace(slot, record);
            model[slot] = ModelRecord(record.begin(), record.end());
            break;
    }
}

}  // namespace sage::vdb::testing
