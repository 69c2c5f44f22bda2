// Notices that a fork has put an object into a second process.
#pragma once

#include <cstdint>
#include <string_view>

namespace sage::storage {

// What a store has open belongs to the process that opened it: its threads, its lock and its place in the files did
// not come along into a forked child. The child is told so instead of writing into its parent's files.
class ProcessGuard {
public:
    ProcessGuard();

    // Whether this is still the process that made the guard. Costs one load: forks are counted, not asked for.
    // A child made by a bare clone(2) instead of fork(2) is not noticed.
    [[nodiscard]] bool is_owner() const noexcept;

    // Throws StoreLocked in a child. `what` is the subject of the message, such as "the store '/data/docs'".
    void require_owner(std::string_view what) const;

private:
    std::uint64_t generation_;
    long process_;
};

}  // namespace sage::storage
