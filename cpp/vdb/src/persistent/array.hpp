// A persistent sparse array: a radix tree. Internal.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "persistent/ref.hpp"

namespace sage::vdb::persistent {

// What was never written is a default T. Leaves hold 2^LeafBits items, inner nodes 2^5 children.
template <class T, unsigned LeafBits>
class Array {
public:
    static constexpr std::size_t leaf_size = std::size_t{1} << LeafBits;

    // nullptr where the leaf of `index` was never written.
    [[nodiscard]] const T* find(std::size_t index) const noexcept {
        if (!root_ || (index >> bits()) != 0) {
            return nullptr;
        }
        const Node* node = root_.get();
        for (unsigned level = height_; level > 0; --level) {
            node = static_cast<const Inner*>(node)->children[place(index, level)].get();
            if (node == nullptr) {
                return nullptr;
            }
        }
        return &static_cast<const Leaf*>(node)->items[index & (leaf_size - 1)];
    }

    // The item, for change by `owner`. The reference holds until the next call.
    [[nodiscard]] T& edit(std::size_t index, Owner owner) {
        if (!root_) {
            while ((index >> bits()) != 0) {
                ++height_;
            }
        }
        while ((index >> bits()) != 0) {
            Ref<Inner> above = make_node<Inner>(owner);
            above->children[0] = root_;
            root_ = above;
            ++height_;
        }
        Ref<Node>* link = &root_;
        for (unsigned level = height_; level > 0; --level) {
            link = &own_as<Inner>(*link, owner).children[place(index, level)];
        }
        return own_as<Leaf>(*link, owner).items[index & (leaf_size - 1)];
    }

    // Calls visit(index of the first item, its leaf_size items) for every leaf that was written, ascending.
    template <class Visit>
    void for_each_leaf(Visit&& visit) const {
        if (root_) {
            walk(*root_, height_, 0, visit);
        }
    }

private:
    struct Leaf : Node {
        using Node::Node;
        std::array<T, leaf_size> items{};
    };
    struct Inner : Node {
        using Node::Node;
        std::array<Ref<Node>, 32> children;
    };

    [[nodiscard]] unsigned bits() const noexcept { return LeafBits + 5 * height_; }
    static std::size_t place(std::size_t index, unsigned level) noexcept {
        return (index >> (LeafBits + 5 * (level - 1))) & 31U;
    }

    template <class Kind>
    static Kind& own_as(Ref<Node>& link, Owner owner) {
        if (!link) {
            link = make_node<Kind>(owner);
        } else if (link->owner != owner) {
            Ref<Kind> copy = make_node<Kind>(static_cast<const Kind&>(*link));
            copy->owner = owner;
            link = copy;
        }
        return static_cast<Kind&>(*link);
    }

    template <class Visit>
    static void walk(const Node& node, unsigned level, std::size_t first, Visit& visit) {
        if (level == 0) {
            visit(first, static_cast<const Leaf&>(node).items);
            return;
        }
        const auto& children = static_cast<const Inner&>(node).children;
        for (std::size_t child = 0; child < children.size(); ++child) {
            if (children[child]) {
                walk(*children[child], level - 1, first + (child << (LeafBits + 5 * (level - 1))), visit);
            }
        }
    }

    Ref<Node> root_;
    unsigned height_ = 0;  // inner levels
};

}  // namespace sage::vdb::persistent
