// The inner loops of crc32c, one per instruction set. They take and give the raw register, which is inverted.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sage::detail {

#ifdef SAGE_HAVE_SSE42
extern "C" std::uint32_t sage_crc32c_sse42(std::uint32_t state, const unsigned char* bytes, std::size_t count) noexcept;
#endif
#ifdef SAGE_HAVE_ARM_CRC
extern "C" std::uint32_t sage_crc32c_arm(std::uint32_t state, const unsigned char* bytes, std::size_t count) noexcept;
#endif

}  // namespace sage::detail
