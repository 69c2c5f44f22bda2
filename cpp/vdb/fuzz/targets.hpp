// What the fuzzers call: each takes any bytes and must neither crash nor accept what it would not write itself.
#pragma once

#include <cstddef>
#include <span>

namespace sage::vdb::fuzz {

void fuzz_filter(std::span<const std::byte> bytes);
void fuzz_metadata(std::span<const std::byte> bytes);
void fuzz_bm25(std::span<const std::byte> bytes);

}  // namespace sage::vdb::fuzz
