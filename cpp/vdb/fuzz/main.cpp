// One libFuzzer program per parser: SAGE_FUZZ_TARGET says which.
#include <cstddef>
#include <cstdint>
#include <span>

#include "targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    sage::vdb::fuzz::SAGE_FUZZ_TARGET(std::as_bytes(std::span(data, size)));
    return 0;
}
