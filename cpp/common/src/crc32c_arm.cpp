// Compiled with the CRC extension; called only where the processor has it.
#include <arm_acle.h>

#include <cstring>

#include "crc32c_kernels.hpp"

namespace sage::detail {

extern "C" std::uint32_t sage_crc32c_arm(std::uint32_t state, const unsigned char* bytes, std::size_t count) noexcept {
    for (; count >= 8; bytes += 8, count -= 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes, 8);
        state = __crc32cd(state, word);
    }
    for (; count != 0; ++bytes, --count) {
        state = __crc32cb(state, *bytes);
    }
    return state;
}

}  // namespace sage::detail
