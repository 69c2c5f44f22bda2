#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

#include "sage/vdb/slot_set.hpp"

namespace sage::vdb {
namespace {

using Model = std::set<Slot>;

SlotSet set_of(const Model& slots) {
    SlotSet set;
    for (const Slot slot : slots) {
        set.insert(slot);
    }
    return set;
}

Model model_of(const SlotSet& set) {
    Model model;
    Slot last = 0;
    set.for_each([&](Slot slot) {
        EXPECT_TRUE(model.empty() || last < slot);
        last = slot;
        model.insert(slot);
    });
    return model;
}

Model random_model(std::mt19937& random) {
    Model model;
    const Slot end = std::uniform_int_distribution<Slot>(1, 700)(random);
    const int count = std::uniform_int_distribution<int>(0, 300)(random);
    for (int i = 0; i < count; ++i) {
        model.insert(std::uniform_int_distribution<Slot>(0, end)(random));
    }
    return model;
}

TEST(SlotSet, FollowsASetThroughRandomOperations) {
    std::mt19937 random(3);
    for (int turn = 0; turn < 2000; ++turn) {
        const Model a = random_model(random);
        const Model b = random_model(random);
        SlotSet either = set_of(a);
        either |= set_of(b);
        SlotSet both = set_of(a);
        both &= set_of(b);
        SlotSet rest = set_of(a);
        rest.and_not(set_of(b));
        Model want_either = a;
        want_either.insert(b.begin(), b.end());
        Model want_both;
        Model want_rest;
        for (const Slot slot : a) {
            (b.contains(slot) ? want_both : want_rest).insert(slot);
        }
        ASSERT_EQ(model_of(either), want_either);
        ASSERT_EQ(model_of(both), want_both);
        ASSERT_EQ(model_of(rest), want_rest);
        ASSERT_EQ(either.count(), want_either.size());
        ASSERT_EQ(both.empty(), want_both.empty());
        ASSERT_EQ(set_of(a) == set_of(b), a == b);
        SlotSet roomy = set_of(a);
        roomy.grow(5000);
        ASSERT_EQ(roomy, set_of(a));
        for (const Slot slot : b) {
            roomy.erase(slot);
        }
        ASSERT_EQ(roomy, rest);
    }
}

TEST(SlotSet, RangesAreThoseOfSingleSlots) {
    for (Slot first = 0; first < 140; first += 7) {
        for (Slot last = first; last < 200; last += 3) {
            SlotSet one_by_one;
            for (Slot slot = first; slot <= last; ++slot) {
                one_by_one.insert(slot);
            }
            SlotSet at_once;
            at_once.insert_range(first, last);
            ASSERT_EQ(at_once, one_by_one) << first << ".." << last;
        }
    }
    SlotSet none;
    none.insert_range(5, 4);
    EXPECT_TRUE(none.empty());
}

TEST(SlotSet, GrowsAndStartsOnACacheLine) {
    SlotSet set;
    EXPECT_FALSE(set.contains(1'000'000));
    set.erase(1'000'000);
    EXPECT_EQ(set.capacity(), 0U);
    set.insert(100);
    EXPECT_EQ(set.capacity(), 128U);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(set.words().data()) % cache_line_bytes, 0U);
    EXPECT_EQ(set.words()[1], std::uint64_t{1} << 36);
}

}  // namespace
}  // namespace sage::vdb
