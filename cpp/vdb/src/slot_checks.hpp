// What every index over slots refuses before it changes anything. Internal.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <unordered_set>

#include "sage/common/error.hpp"
#include "sage/vdb/slot_set.hpp"

namespace sage::vdb {

// `values` values are one row for each of `slots` slots.
inline void require_rows(std::size_t values, std::size_t slots, std::size_t dimension) {
    if (values / dimension != slots || values % dimension != 0) {
        throw InvalidArgument("vectors must hold one row of dimension " + std::to_string(dimension) +
                              " per slot, got " + std::to_string(values) + " values for " + std::to_string(slots) +
                              " slots");
    }
}

inline void require_threads(std::size_t threads) {
    if (threads < 1) {
        throw InvalidArgument("threads must be >= 1, got 0");
    }
}

// Distinct and free: neither live nor removed and still read by somebody, as the two functions say.
template <class IsHeld, class IsLive>
void require_free(std::span<const Slot> slots, IsHeld is_held, IsLive is_live) {
    std::unordered_set<Slot> seen;
    seen.reserve(slots.size());
    for (const Slot slot : slots) {
        if (slot > slot_max) {
            throw InvalidArgument("a slot must be at most " + std::to_string(slot_max) + ", got " +
                                  std::to_string(slot));
        }
        if (!seen.insert(slot).second) {
            throw InvalidArgument("slots must be distinct within a batch, got " + std::to_string(slot) + " twice");
        }
        if (is_held(slot)) {
            throw InvalidArgument("slot " + std::to_string(slot) +
                                  (is_live(slot) ? " must be free, it holds a vector; remove it first"
                                                 : " was removed and is not free yet; take_free() names the slots "
                                                   "that are"));
        }
    }
}

}  // namespace sage::vdb
