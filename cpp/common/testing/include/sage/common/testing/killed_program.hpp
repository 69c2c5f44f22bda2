// A program that writes to a store, killed in the middle of it.
#pragma once

#include <chrono>
#include <string>

namespace sage::storage::testing {

// Starts `program` with `folder` as its argument, and kills it with SIGKILL when it has printed something and `delay`
// is over. Gives what it printed, whole lines. Throws std::runtime_error when it cannot be started or ends by itself.
[[nodiscard]] std::string output_until_killed(const std::string& program, const std::string& folder,
                                              std::chrono::milliseconds delay);

}  // namespace sage::storage::testing
