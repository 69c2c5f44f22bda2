// The persistent structures against those of the standard library; old versions must stay as they were.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "metadata_state.hpp"
#include "persistent/array.hpp"
#include "persistent/posting.hpp"
#include "persistent/tree.hpp"

namespace sage::vdb::persistent {
namespace {

std::set<Slot> slots_of(const Posting& posting) {
    SlotSet all(posting.end());
    posting.add_to(all);
    std::set<Slot> slots;
    all.for_each([&slots](Slot slot) { slots.insert(slot); });
    return slots;
}

TEST(Posting, FollowsASetAndKeepsItsVersions) {
    std::mt19937 random(1);
    for (const Slot end : {5U, 300U, 20'000U, 200'000U}) {
        Posting posting;
        std::set<Slot> model;
        std::vector<std::pair<Posting, std::set<Slot>>> versions;
        Owner owner = 1;
        // Grows dense enough for bitmaps, then shrinks to nothing.
        for (int turn = 0; turn < 40'000; ++turn) {
            const Slot slot = std::uniform_int_distribution<Slot>(0, end)(random);
            const bool grow = std::uniform_int_distribution<int>(0, 9)(random) < (turn < 20'000 ? 8 : 1);
            if (grow) {
                ASSERT_EQ(posting.insert(slot, owner), model.insert(slot).second);
            } else if (!model.empty()) {
                const auto near = model.lower_bound(slot);
                const Slot victim = near == model.end() ? *model.begin() : *near;
                ASSERT_TRUE(posting.erase(victim, owner));
                model.erase(victim);
                ASSERT_FALSE(posting.erase(victim, owner));
            }
            ASSERT_EQ(posting.count(), model.size());
            ASSERT_EQ(posting.contains(slot), model.contains(slot));
            ASSERT_EQ(posting.end(), model.empty() ? 0 : std::size_t{*model.rbegin()} + 1);
            if (turn % 2'500 == 0) {
                versions.emplace_back(posting, model);
                ++owner;
            }
        }
        for (const auto& [version, slots] : versions) {
            ASSERT_EQ(slots_of(version), slots);
        }
        while (!model.empty()) {
            ASSERT_TRUE(posting.erase(*model.begin(), owner));
            model.erase(model.begin());
            ASSERT_EQ(posting.count(), model.size());
        }
        ASSERT_EQ(slots_of(posting), model);
    }
}

TEST(Array, FollowsAMapAndKeepsItsVersions) {
    std::mt19937 random(2);
    Array<int, 3> array;
    std::map<std::size_t, int> model;
    std::vector<std::pair<Array<int, 3>, std::map<std::size_t, int>>> versions;
    Owner owner = 1;
    for (int turn = 1; turn < 5'000; ++turn) {
        // Most are near, some far beyond what the tree is high enough for.
        const auto bits = std::uniform_int_distribution<unsigned>(1, 31)(random);
        const auto index = std::uniform_int_distribution<std::size_t>(0, (std::size_t{1} << bits) - 1)(random);
        array.edit(index, owner) = turn;
        model[index] = turn;
        if (turn % 500 == 0) {
            versions.emplace_back(array, model);
            ++owner;
        }
    }
    for (const auto& [version, items] : versions) {
        for (const auto& [index, item] : items) {
            ASSERT_EQ(*version.find(index), item);
        }
        std::size_t found = 0;
        version.for_each_leaf([&](std::size_t first, const auto& leaf) {
            for (std::size_t i = 0; i < leaf.size(); ++i) {
                found += leaf[i] != 0 ? 1 : 0;
                ASSERT_EQ(leaf[i], items.contains(first + i) ? items.at(first + i) : 0);
            }
        });
        ASSERT_EQ(found, items.size());
    }
}

using Index = detail::NumberIndex;

TEST(Tree, BuiltAtOnceIsAsBuiltOneByOne) {
    std::mt19937 random(5);
    for (const std::size_t count : {0U, 1U, 47U, 48U, 49U, 64U, 1200U, 60'000U}) {
        std::vector<std::int64_t> keys;
        std::vector<Posting> values;
        std::map<std::int64_t, std::int64_t> model;
        for (std::size_t i = 0; i < count; ++i) {
            keys.push_back(static_cast<std::int64_t>(3 * i));
            values.emplace_back();
            values.back().insert(static_cast<Slot>(i), 1);
            model[keys.back()] = 1;
        }
        Index tree = Index::build(keys, values, 1);
        ASSERT_EQ(tree.size(), count);
        const Index version = tree;
        for (int turn = 0; turn < 3000; ++turn) {
            const auto key = std::uniform_int_distribution<std::int64_t>(0, static_cast<std::int64_t>(3 * count + 5))(random);
            const bool gone = turn % 3 == 0 && model.contains(key);
            tree.change(key, 2, [gone, turn](Posting& posting) {
                const std::int64_t before = posting.count();
                posting.insert(static_cast<Slot>(100'000 + turn), 2);
                return Index::Change{{gone ? -before : posting.count() - before, gone ? -1 : before == 0 ? 1 : 0}, !gone};
            });
            if (gone) {
                model.erase(key);
            } else {
                ++model[key];
            }
        }
        std::map<std::int64_t, std::int64_t> found;
        std::int64_t slots = 0;
        constexpr auto nowhere = [](std::int64_t) { return false; };
        tree.for_each(nowhere, nowhere, [&](std::int64_t key, const Posting& posting) {
            found[key] = posting.count();
            slots += posting.count();
        });
        ASSERT_EQ(found, model);
        ASSERT_EQ(tree.total().slots, slots);
        ASSERT_EQ(tree.total().entries, static_cast<std::int64_t>(model.size()));
        ASSERT_EQ(version.size(), count);
        ASSERT_EQ(version.total().slots, static_cast<std::int64_t>(count));
    }
}

void expect_same(const Index& tree, const std::map<std::int64_t, std::set<Slot>>& model, std::mt19937& random) {
    ASSERT_EQ(tree.size(), model.size());
    for (int turn = 0; turn < 20; ++turn) {
        const auto low = std::uniform_int_distribution<std::int64_t>(-50, 4050)(random);
        const auto high = std::uniform_int_distribution<std::int64_t>(-50, 4050)(random);
        const auto before = [low](std::int64_t key) { return key < low; };
        const auto after = [high](std::int64_t key) { return key > high; };
        std::map<std::int64_t, std::set<Slot>> found;
        tree.for_each(before, after, [&found](std::int64_t key, const Posting& posting) { found[key] = slots_of(posting); });
        std::map<std::int64_t, std::set<Slot>> wanted;
        std::int64_t slots = 0;
        for (const auto& [key, value] : model) {
            if (low <= key && key <= high) {
                wanted[key] = value;
                slots += static_cast<std::int64_t>(value.size());
            }
        }
        ASSERT_EQ(found, wanted);
        const detail::Counts counts = tree.summary(before, after);
        ASSERT_EQ(counts.slots, slots);
        ASSERT_EQ(counts.entries, static_cast<std::int64_t>(wanted.size()));
    }
}

TEST(Tree, FollowsAMapAndKeepsItsVersions) {
    std::mt19937 random(4);
    Index tree;
    std::map<std::int64_t, std::set<Slot>> model;
    std::vector<std::pair<Index, std::map<std::int64_t, std::set<Slot>>>> versions;
    Owner owner = 1;
    const auto change = [&](std::int64_t key, Slot slot, bool grow) {
        tree.change(key, owner, [&](Posting& posting) {
            const std::int64_t known = posting.count();
            grow ? posting.insert(slot, owner) : posting.erase(slot, owner);
            const std::int64_t now = posting.count();
            return Index::Change{{now - known, (now > 0 ? 1 : 0) - (known > 0 ? 1 : 0)}, now > 0};
        });
        grow ? static_cast<void>(model[key].insert(slot)) : static_cast<void>(model[key].erase(slot));
        if (model[key].empty()) {
            model.erase(key);
        }
    };
    for (int turn = 0; turn < 60'000; ++turn) {
        // Ascending first, then at random, then it shrinks.
        const auto key = turn < 4'000 ? turn : std::uniform_int_distribution<std::int64_t>(0, 4'000)(random);
        const bool grow = turn < 4'000 || std::uniform_int_distribution<int>(0, 9)(random) < (turn < 20'000 ? 5 : 1);
        const auto near = grow ? model.end() : model.lower_bound(key);
        if (grow || near != model.end()) {
            change(grow ? key : near->first, grow ? std::uniform_int_distribution<Slot>(0, 5)(random) : *near->second.begin(),
                   grow);
        }
        if (turn % 4'000 == 3'999) {
            expect_same(tree, model, random);
            versions.emplace_back(tree, model);
            ++owner;
        }
    }
    for (const auto& [version, entries] : versions) {
        expect_same(version, entries, random);
    }
    while (!model.empty()) {
        change(model.begin()->first, *model.begin()->second.begin(), false);
    }
    expect_same(tree, model, random);
    change(1, 1, true);
    expect_same(tree, model, random);
}

}  // namespace
}  // namespace sage::vdb::persistent
