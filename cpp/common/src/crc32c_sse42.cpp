// Compiled with -msse4.2; called only where the processor has it.
#include <nmmintrin.h>

#include <cstring>

#include "crc32c_kernels.hpp"

namespace sage::detail {

extern "C" std::uint32_t sage_crc32c_sse42(std::uint32_t state, const unsigned char* bytes,
                                           std::size_t count) noexcept {
    std::uint64_t wide = state;
    for (; count >= 8; bytes += 8, count -= 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    auto narrow = static_cast<std::uint32_t>(wide);
    for (; count != 0; ++bytes, --count) {
        narrow = _mm_crc32_u8(narrow, *bytes);
    }
    return narrow;
}

}  // namespace sage::detail
