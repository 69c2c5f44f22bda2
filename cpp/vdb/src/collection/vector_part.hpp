// The index of a collection. Internal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "sage/vdb/collection.hpp"
#include "sage/vdb/slot_set.hpp"

namespace sage::vdb::detail {

inline constexpr Slot no_head = ~Slot{0};

using Words = std::span<const std::uint64_t>;

// The index that a collection of these options has: never automatic.
[[nodiscard]] IndexKind main_kind(const CollectionOptions& options) noexcept;
[[nodiscard]] IndexOptions main_options(const CollectionOptions& options);

[[nodiscard]] std::unique_ptr<Index> make_main(const CollectionOptions& options);
// Throws Corruption.
[[nodiscard]] std::unique_ptr<Index> load_main(const CollectionOptions& options, std::span<const std::byte> bytes);

// The effort at which about that share of the true best `k` is found.
[[nodiscard]] std::size_t effort_for(const Index& index, double recall, std::size_t k);

}  // namespace sage::vdb::detail
