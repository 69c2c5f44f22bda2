#include "sage/common/crc32c.hpp"

#include <array>

#include "crc32c_kernels.hpp"

#if defined(SAGE_HAVE_ARM_CRC) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace sage {
namespace {

using Kernel = std::uint32_t (*)(std::uint32_t state, const unsigned char* bytes, std::size_t count) noexcept;
using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr std::uint32_t polynomial = 0x82F63B78;  // reflected

// tables[k][b]: what byte b does to the register when k more bytes follow it ("slicing by 8").
constexpr Tables make_tables() {
    Tables tables{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
        std::uint32_t value = byte;
        for (int bit = 0; bit < 8; ++bit) {
            value = (value >> 1) ^ ((value & 1U) != 0 ? polynomial : 0U);
        }
        tables[0][byte] = value;
    }
    for (std::size_t after = 1; after < tables.size(); ++after) {
        for (std::uint32_t byte = 0; byte < 256; ++byte) {
            const std::uint32_t value = tables[after - 1][byte];
            tables[after][byte] = (value >> 8) ^ tables[0][value & 0xFFU];
        }
    }
    return tables;
}

constexpr Tables tables = make_tables();

std::uint32_t by_tables(std::uint32_t state, const unsigned char* bytes, std::size_t count) noexcept {
    for (; count >= 8; bytes += 8, count -= 8) {
        // Byte by byte, so that the result does not depend on the machine's byte order.
        std::uint32_t low = state;
        for (std::uint32_t i = 0; i < 4; ++i) {
            low ^= static_cast<std::uint32_t>(bytes[i]) << (8 * i);
        }
        state = tables[7][low & 0xFFU] ^ tables[6][(low >> 8) & 0xFFU] ^ tables[5][(low >> 16) & 0xFFU] ^
                tables[4][low >> 24] ^ tables[3][bytes[4]] ^ tables[2][bytes[5]] ^ tables[1][bytes[6]] ^
                tables[0][bytes[7]];
    }
    for (; count != 0; ++bytes, --count) {
        state = (state >> 8) ^ tables[0][(state ^ *bytes) & 0xFFU];
    }
    return state;
}

Kernel choose_kernel() noexcept {
#ifdef SAGE_HAVE_SSE42
    if (__builtin_cpu_supports("sse4.2")) {
        return &detail::sage_crc32c_sse42;
    }
#endif
#ifdef SAGE_HAVE_ARM_CRC
#if defined(__APPLE__)
    return &detail::sage_crc32c_arm;
#elif defined(__linux__)
    if ((getauxval(AT_HWCAP) & HWCAP_CRC32) != 0) {
        return &detail::sage_crc32c_arm;
    }
#endif
#endif
    return &by_tables;
}

Kernel chosen_kernel() noexcept {
    static const Kernel kernel = choose_kernel();
    return kernel;
}

std::uint32_t run(Kernel kernel, std::span<const std::byte> bytes, std::uint32_t before) noexcept {
    return ~kernel(~before, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before) noexcept {
    return run(chosen_kernel(), bytes, before);
}

std::uint32_t crc32c_by_tables(std::span<const std::byte> bytes, std::uint32_t before) noexcept {
    return run(&by_tables, bytes, before);
}

bool crc32c_has_hardware() noexcept { return chosen_kernel() != &by_tables; }

}  // namespace sage
