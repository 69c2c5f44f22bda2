// Which vector instructions this process uses.
//
// The best level that both the build and the CPU offer is chosen once per process, at first use. The
// environment variable SAGE_SIMD=scalar|neon|avx2|avx512 forces another one, for tests and for comparing
// results across machines. A name that is unknown, or a level that this machine does not offer, is an
// InvalidArgument at first use and never a silent fallback: who sets the variable wants that level.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace sage::simd {

// Ordered from the slowest to the fastest of a machine.
enum class Level { scalar, neon, avx2, avx512 };

// The name as SAGE_SIMD spells it.
[[nodiscard]] std::string_view level_name(Level level) noexcept;

// The levels that this build and this CPU offer, ascending; scalar always comes first.
[[nodiscard]] const std::vector<Level>& available_levels();

// The level of this process. Throws InvalidArgument when SAGE_SIMD is not one of available_levels().
[[nodiscard]] Level active_level();

// The decision behind active_level(): `requested` is the value of SAGE_SIMD, absent or empty for none.
[[nodiscard]] Level choose_level(std::optional<std::string_view> requested, const std::vector<Level>& available);

}  // namespace sage::simd
