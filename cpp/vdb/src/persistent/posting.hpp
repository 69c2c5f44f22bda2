// A persistent set of slots that is small when it holds few. Internal.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "persistent/ref.hpp"
#include "sage/vdb/slot_set.hpp"

namespace sage::vdb::persistent {

// Up to three slots lie inside the object itself, up to 28 in one node, more in chunks of 65,536 slots that are a sorted
// array or, from 4,096 slots on, a bitmap: Chambi, Lemire, Kaser, Godin, "Better bitmap performance with Roaring bitmaps"
// (2016).
class Posting {
public:
    Posting() noexcept {}
    Posting(const Posting& other) noexcept;
    Posting(Posting&& other) noexcept;
    Posting& operator=(Posting other) noexcept;
    ~Posting();

    [[nodiscard]] std::uint32_t count() const noexcept { return count_; }
    [[nodiscard]] bool contains(Slot slot) const noexcept;
    // Whether it was changed.
    bool insert(Slot slot, Owner owner);
    bool erase(Slot slot, Owner owner);
    // Adds all to `into`, which must have room for them.
    void add_to(SlotSet& into) const;
    // One above the highest slot; 0 when empty.
    [[nodiscard]] std::size_t end() const noexcept;
    // Memory outside of the object.
    [[nodiscard]] std::size_t bytes() const noexcept;

    static constexpr std::uint32_t few_max = 28;
    struct Few : Node {
        using Node::Node;
        std::array<Slot, few_max> slots{};  // sorted
    };
    struct Chunk : Node {
        using Node::Node;
        std::vector<std::uint16_t> places;  // sorted; empty when there is a bitmap
        std::vector<std::uint64_t> bitmap;  // 1,024 words or none
        std::uint32_t count = 0;
    };
    struct Chunks : Node {
        using Node::Node;
        std::vector<std::uint16_t> keys;  // slot / 65,536, sorted
        std::vector<Ref<Chunk>> chunks;
    };

private:
    static constexpr std::uint32_t inline_max = 3;

    [[nodiscard]] bool small() const noexcept { return count_ <= inline_max; }
    [[nodiscard]] bool is_few() const noexcept { return !small() && count_ <= few_max; }
    // Which of them it is, the count says.
    [[nodiscard]] const Few& few() const noexcept { return static_cast<const Few&>(*node_); }
    [[nodiscard]] const Chunks& chunks() const noexcept { return static_cast<const Chunks&>(*node_); }
    [[nodiscard]] const Slot* begin_of_few() const noexcept { return few().slots.data(); }
    [[nodiscard]] const Slot* end_of_few() const noexcept { return few().slots.data() + count_; }
    void insert_in_node(Slot slot, Owner owner);
    void erase_from_few(Slot slot, Owner owner);
    void erase_from_chunks(Slot slot, Owner owner);
    void release() noexcept;

    std::uint32_t count_ = 0;
    std::uint32_t first_ = 0;
    union {
        std::array<std::uint32_t, 2> rest_{0, 0};
        Ref<Node> node_;
    };
};

}  // namespace sage::vdb::persistent
