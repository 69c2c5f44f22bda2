// A persistent B+tree with a summary of every subtree. Internal.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

#include "persistent/ref.hpp"

namespace sage::vdb::persistent {

// Traits say what is in it:
//   Key, Value          Value{} is what a new key starts with
//   Summary             Summary{} is that of nothing
//   Delta               what one change does to a summary
//   leaf_capacity, inner_capacity
//   summarize(keys, values) -> Summary    of a leaf; of(value) -> Summary    of one entry (only summary() needs it)
//   merge(Summary&, const Summary&)
//   apply(Summary&, const Delta&) -> bool  false: the summary has to be made anew
template <class Traits>
class Tree {
public:
    using Key = typename Traits::Key;
    using Value = typename Traits::Value;
    using Summary = typename Traits::Summary;
    using Delta = typename Traits::Delta;

    struct Leaf : Node {
        using Node::Node;
        std::vector<Key> keys;
        std::vector<Value> values;
    };

    struct Change {
        Delta delta;
        bool keep;  // false takes the key out
    };

    // A tree of entries whose keys ascend: several times as fast as change() for each.
    [[nodiscard]] static Tree build(std::vector<Key> keys, std::vector<Value> values, Owner owner) {
        Tree tree;
        Row row;
        for (std::size_t first = 0; first < keys.size(); first += filled(Traits::leaf_capacity)) {
            const std::size_t last = std::min(first + filled(Traits::leaf_capacity), keys.size());
            Ref<Leaf> leaf = make_node<Leaf>(owner);
            leaf->keys.assign(std::make_move_iterator(at(keys, first)), std::make_move_iterator(at(keys, last)));
            leaf->values.assign(std::make_move_iterator(at(values, first)), std::make_move_iterator(at(values, last)));
            row.push_back({leaf->keys.front(), Traits::summarize(leaf->keys, leaf->values), leaf});
        }
        tree.size_ = keys.size();
        while (row.size() > 1) {
            row = parents_of(row, owner);
            ++tree.height_;
        }
        if (!row.empty()) {
            tree.root_ = row.front().node;
            tree.total_ = row.front().summary;
        }
        return tree;
    }

    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] const Summary& total() const noexcept { return total_; }

    template <class Wanted>
    [[nodiscard]] const Value* find(const Wanted& key) const {
        const auto [leaf, at] = locate(key);
        return leaf == nullptr ? nullptr : &leaf->values[at];
    }
    // The stored key that equals `key`.
    template <class Wanted>
    [[nodiscard]] const Key* find_key(const Wanted& key) const {
        const auto [leaf, at] = locate(key);
        return leaf == nullptr ? nullptr : &leaf->keys[at];
    }

    // Calls edit(Value&) -> Change with the value of `key`, a new one if there is none.
    template <class Edit>
    void change(const Key& key, Owner owner, Edit&& edit) {
        if (!root_) {
            root_ = make_node<Leaf>(owner);
        }
        Outcome outcome;
        change_in(root_, height_, key, owner, edit, outcome);
        if (outcome.right) {
            Ref<Inner> above = make_node<Inner>(owner);
            above->lows = {low_of(root_, height_), outcome.right_low};
            above->summaries = {summary_of(*root_, height_), summary_of(*outcome.right, height_)};
            above->children = {root_, outcome.right};
            root_ = above;
            ++height_;
        }
        while (height_ > 0 && static_cast<const Inner&>(*root_).children.size() == 1) {
            const Ref<Node> only = static_cast<const Inner&>(*root_).children[0];
            root_ = only;
            --height_;
        }
        size_ += outcome.grown ? 1 : 0;
        size_ -= outcome.shrunk ? 1 : 0;
        if (size_ == 0) {
            *this = Tree();
            return;
        }
        if (!Traits::apply(total_, outcome.delta)) {
            total_ = summary_of(*root_, height_);
        }
    }

    // The keys of a range are those that are neither before(key) nor after(key); both must be monotone.
    template <class Before, class After, class Visit>
    void for_each(const Before& before, const After& after, Visit&& visit) const {
        if (root_) {
            walk(*root_, height_, before, after, visit);
        }
    }
    template <class Before, class After>
    [[nodiscard]] Summary summary(const Before& before, const After& after) const {
        Summary sum{};
        if (root_) {
            sum_up(*root_, height_, before, after, sum);
        }
        return sum;
    }
    // Calls visit(leaf, its summary) in ascending order.
    template <class Visit>
    void for_each_leaf(Visit&& visit) const {
        if (root_) {
            walk_leaves(*root_, height_, total_, visit);
        }
    }

private:
    struct Inner : Node {
        using Node::Node;
        std::vector<Key> lows;  // lows[i] <= every key below children[i] < lows[i + 1]
        std::vector<Summary> summaries;
        std::vector<Ref<Node>> children;
    };
    struct Subtree {
        Key low;
        Summary summary;
        Ref<Node> node;
    };
    using Row = std::vector<Subtree>;
    struct Outcome {
        Delta delta{};
        bool grown = false;
        bool shrunk = false;
        Ref<Node> right;  // a new neighbour to the right
        Key right_low{};
    };

    // Room is left, so that the first changes split nothing.
    static constexpr std::size_t filled(std::size_t capacity) { return capacity - capacity / 4; }
    static Row parents_of(const Row& children, Owner owner) {
        Row above;
        for (std::size_t first = 0; first < children.size(); first += filled(Traits::inner_capacity)) {
            Ref<Inner> inner = make_node<Inner>(owner);
            Summary sum{};
            for (std::size_t i = first; i < std::min(first + filled(Traits::inner_capacity), children.size()); ++i) {
                inner->lows.push_back(children[i].low);
                inner->summaries.push_back(children[i].summary);
                inner->children.push_back(children[i].node);
                Traits::merge(sum, children[i].summary);
            }
            above.push_back({inner->lows.front(), sum, inner});
        }
        return above;
    }
    template <class Kind>
    static Kind& own_as(Ref<Node>& link, Owner owner) {
        if (link->owner != owner) {
            Ref<Kind> copy = make_node<Kind>(static_cast<const Kind&>(*link));
            copy->owner = owner;
            link = copy;
        }
        return static_cast<Kind&>(*link);
    }
    static Key low_of(const Ref<Node>& node, unsigned level) {
        return level == 0 ? static_cast<const Leaf&>(*node).keys.front() : static_cast<const Inner&>(*node).lows.front();
    }
    static Summary summary_of(const Node& node, unsigned level) {
        if (level == 0) {
            const auto& leaf = static_cast<const Leaf&>(node);
            return Traits::summarize(leaf.keys, leaf.values);
        }
        Summary sum{};
        for (const Summary& part : static_cast<const Inner&>(node).summaries) {
            Traits::merge(sum, part);
        }
        return sum;
    }
    template <class T>
    static auto at(std::vector<T>& items, std::size_t place) {
        return items.begin() + static_cast<std::ptrdiff_t>(place);
    }
    // Moves the items from `place` on into a vector of their own.
    template <class T>
    static std::vector<T> tail(std::vector<T>& items, std::size_t place) {
        std::vector<T> moved(std::make_move_iterator(at(items, place)), std::make_move_iterator(items.end()));
        items.erase(at(items, place), items.end());
        return moved;
    }
    template <class T>
    static void append(std::vector<T>& items, const std::vector<T>& more) {
        items.insert(items.end(), more.begin(), more.end());
    }

    template <class Wanted>
    [[nodiscard]] std::pair<const Leaf*, std::size_t> locate(const Wanted& key) const {
        if (!root_) {
            return {nullptr, 0};
        }
        const Node* node = root_.get();
        for (unsigned level = height_; level > 0; --level) {
            const auto& inner = static_cast<const Inner&>(*node);
            node = inner.children[child_of(inner, key)].get();
        }
        const auto& leaf = static_cast<const Leaf&>(*node);
        const auto found = std::lower_bound(leaf.keys.begin(), leaf.keys.end(), key);
        if (found == leaf.keys.end() || key < *found) {
            return {nullptr, 0};
        }
        return {&leaf, static_cast<std::size_t>(found - leaf.keys.begin())};
    }
    template <class Wanted>
    static std::size_t child_of(const Inner& inner, const Wanted& key) {
        const auto above = std::upper_bound(inner.lows.begin(), inner.lows.end(), key);
        return above == inner.lows.begin() ? 0 : static_cast<std::size_t>(above - inner.lows.begin()) - 1;
    }

    template <class Edit>
    static void change_in(Ref<Node>& link, unsigned level, const Key& key, Owner owner, Edit& edit, Outcome& outcome) {
        if (level == 0) {
            change_leaf(own_as<Leaf>(link, owner), key, owner, edit, outcome);
            return;
        }
        Inner& inner = own_as<Inner>(link, owner);
        const std::size_t child = child_of(inner, key);
        change_in(inner.children[child], level - 1, key, owner, edit, outcome);
        if (key < inner.lows[child]) {
            inner.lows[child] = key;
        }
        if (outcome.right) {
            inner.summaries[child] = summary_of(*inner.children[child], level - 1);
            inner.lows.insert(at(inner.lows, child + 1), outcome.right_low);
            inner.summaries.insert(at(inner.summaries, child + 1), summary_of(*outcome.right, level - 1));
            inner.children.insert(at(inner.children, child + 1), outcome.right);
            outcome.right = Ref<Node>();
            if (inner.children.size() > Traits::inner_capacity) {
                split_inner(inner, child + 2 == inner.children.size(), owner, outcome);
            }
            return;
        }
        if (!Traits::apply(inner.summaries[child], outcome.delta)) {
            inner.summaries[child] = summary_of(*inner.children[child], level - 1);
        }
        if (outcome.shrunk) {
            tidy_up(inner, child, level - 1, owner);
        }
    }

    template <class Edit>
    static void change_leaf(Leaf& leaf, const Key& key, Owner owner, Edit& edit, Outcome& outcome) {
        const auto found = std::lower_bound(leaf.keys.begin(), leaf.keys.end(), key);
        const auto place = static_cast<std::size_t>(found - leaf.keys.begin());
        if (found == leaf.keys.end() || key < *found) {
            leaf.keys.insert(found, key);
            leaf.values.insert(at(leaf.values, place), Value{});
            outcome.grown = true;
        }
        const Change change = edit(leaf.values[place]);
        outcome.delta = change.delta;
        if (!change.keep) {
            leaf.keys.erase(at(leaf.keys, place));
            leaf.values.erase(at(leaf.values, place));
            outcome.shrunk = true;
        } else if (leaf.keys.size() > Traits::leaf_capacity) {
            // Ascending insertion leaves full leaves behind, not half full ones.
            const std::size_t cut = place + 1 == leaf.keys.size() ? place : leaf.keys.size() / 2;
            Ref<Leaf> right = make_node<Leaf>(owner);
            right->keys = tail(leaf.keys, cut);
            right->values = tail(leaf.values, cut);
            outcome.right_low = right->keys.front();
            outcome.right = right;
        }
    }

    static void split_inner(Inner& inner, bool at_the_end, Owner owner, Outcome& outcome) {
        const std::size_t cut = at_the_end ? inner.children.size() - 1 : inner.children.size() / 2;
        Ref<Inner> right = make_node<Inner>(owner);
        right->lows = tail(inner.lows, cut);
        right->summaries = tail(inner.summaries, cut);
        right->children = tail(inner.children, cut);
        outcome.right_low = right->lows.front();
        outcome.right = right;
    }

    static std::size_t size_of(const Node& node, unsigned level) {
        return level == 0 ? static_cast<const Leaf&>(node).keys.size() : static_cast<const Inner&>(node).children.size();
    }

    // After a key has gone: no empty child (`inner` may become empty itself), and no small one beside one that has room.
    static void tidy_up(Inner& inner, std::size_t child, unsigned level, Owner owner) {
        const std::size_t capacity = level == 0 ? Traits::leaf_capacity : Traits::inner_capacity;
        const std::size_t size = size_of(*inner.children[child], level);
        if (size > 0 && size > capacity / 4) {
            return;
        }
        if (size > 0) {
            const std::size_t left = child > 0 ? child - 1 : child;
            if (left + 1 >= inner.children.size() ||
                size_of(*inner.children[left], level) + size_of(*inner.children[left + 1], level) > capacity * 3 / 4) {
                return;
            }
            join(inner.children[left], *inner.children[left + 1], level, owner);
            inner.summaries[left] = summary_of(*inner.children[left], level);
            child = left + 1;
        }
        inner.lows.erase(at(inner.lows, child));
        inner.summaries.erase(at(inner.summaries, child));
        inner.children.erase(at(inner.children, child));
    }
    static void join(Ref<Node>& left, const Node& right, unsigned level, Owner owner) {
        if (level == 0) {
            Leaf& into = own_as<Leaf>(left, owner);
            append(into.keys, static_cast<const Leaf&>(right).keys);
            append(into.values, static_cast<const Leaf&>(right).values);
            return;
        }
        Inner& into = own_as<Inner>(left, owner);
        append(into.lows, static_cast<const Inner&>(right).lows);
        append(into.summaries, static_cast<const Inner&>(right).summaries);
        append(into.children, static_cast<const Inner&>(right).children);
    }

    template <class Before, class After, class Visit>
    static bool walk(const Node& node, unsigned level, const Before& before, const After& after, Visit& visit) {
        if (level == 0) {
            const auto& leaf = static_cast<const Leaf&>(node);
            const auto first = std::partition_point(leaf.keys.begin(), leaf.keys.end(), before);
            for (auto place = static_cast<std::size_t>(first - leaf.keys.begin()); place < leaf.keys.size(); ++place) {
                if (after(leaf.keys[place])) {
                    return false;
                }
                visit(leaf.keys[place], leaf.values[place]);
            }
            return true;
        }
        const auto& inner = static_cast<const Inner&>(node);
        const auto first = std::partition_point(inner.lows.begin(), inner.lows.end(), before);
        std::size_t child = first == inner.lows.begin() ? 0 : static_cast<std::size_t>(first - inner.lows.begin()) - 1;
        for (; child < inner.children.size(); ++child) {
            if (after(inner.lows[child]) || !walk(*inner.children[child], level - 1, before, after, visit)) {
                return false;
            }
        }
        return true;
    }

    template <class Before, class After>
    static void sum_up(const Node& node, unsigned level, const Before& before, const After& after, Summary& sum) {
        if (level == 0) {
            const auto& leaf = static_cast<const Leaf&>(node);
            for (std::size_t place = 0; place < leaf.keys.size(); ++place) {
                if (!before(leaf.keys[place]) && !after(leaf.keys[place])) {
                    Traits::merge(sum, Traits::of(leaf.values[place]));
                }
            }
            return;
        }
        const auto& inner = static_cast<const Inner&>(node);
        const std::size_t count = inner.children.size();
        for (std::size_t child = 0; child < count && !after(inner.lows[child]); ++child) {
            const bool last = child + 1 == count;
            if (!last && before(inner.lows[child + 1])) {
                continue;
            }
            if (!last && !before(inner.lows[child]) && !after(inner.lows[child + 1])) {
                Traits::merge(sum, inner.summaries[child]);
            } else {
                sum_up(*inner.children[child], level - 1, before, after, sum);
            }
        }
    }

    template <class Visit>
    static void walk_leaves(const Node& node, unsigned level, const Summary& summary, Visit& visit) {
        if (level == 0) {
            visit(static_cast<const Leaf&>(node), summary);
            return;
        }
        const auto& inner = static_cast<const Inner&>(node);
        for (std::size_t child = 0; child < inner.children.size(); ++child) {
            walk_leaves(*inner.children[child], level - 1, inner.summaries[child], visit);
        }
    }

    Ref<Node> root_;
    unsigned height_ = 0;  // inner levels
    std::size_t size_ = 0;
    Summary total_{};
};

}  // namespace sage::vdb::persistent
