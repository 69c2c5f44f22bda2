// What the fuzz targets of the stored formats have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "fuzz_target.hpp"
#include "sage/common/format.hpp"
#include "sage/common/testing/fault_file_system.hpp"

namespace sage::storage::fuzz {

inline constexpr Application application{{'f', 'u', 'z', 'z'}, 1};
inline constexpr std::uint64_t log_id = 42;

// The inputs are protected by checksums that a random change practically never meets. So the first byte of an input
// says whether the target puts right ones in before it reads, and gets behind them.
inline constexpr std::uint8_t mend_checksums = 1;

// Writes the right checksum over the header's one.
void mend_file_header(std::vector<std::byte>& content);

}  // namespace sage::storage::fuzz
