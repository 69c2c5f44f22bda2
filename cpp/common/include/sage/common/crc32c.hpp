// CRC-32C (Castagnoli), the checksum of everything that is stored; the polynomial of RFC 3720, appendix B.4.
//
// Uses the processor's own instruction where there is one (SSE4.2, ARMv8 CRC), tables otherwise; the results are the
// same bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sage {

// The checksum of `bytes`. `before` is the checksum of what stands in front of them, 0 for nothing: a long text may be
// summed up in pieces.
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0) noexcept;

// The same by tables alone, for comparison.
[[nodiscard]] std::uint32_t crc32c_by_tables(std::span<const std::byte> bytes, std::uint32_t before = 0) noexcept;

// Whether crc32c() uses an instruction of the processor.
[[nodiscard]] bool crc32c_has_hardware() noexcept;

}  // namespace sage
