#include "sage/common/codes.hpp"

#include <algorithm>
#include <string>

#ifdef SAGE_HAVE_AVX2
#include <cpuid.h>
#endif

#include "code_tables.hpp"
#include "sage/common/error.hpp"

namespace sage::distance {
namespace {

#ifdef SAGE_HAVE_AVX2
// Not every machine with AVX2 has F16C by the letter, though none without it is known. Asked of the processor itself:
// Clang's __builtin_cpu_supports does not know the name.
bool has_f16c() {
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

const CodeKernels& table(simd::Level level) {
#ifdef SAGE_HAVE_AVX512
    if (level == simd::Level::avx512 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni")) {
        return avx512_code_kernels;
    }
#endif
#ifdef SAGE_HAVE_AVX2
    if (level >= simd::Level::avx2 && has_f16c()) {
        return avx2_code_kernels;
    }
#endif
    static_cast<void>(level);
    return scalar_code_kernels;
}

}  // namespace

const CodeKernels& code_kernels() {
    static const CodeKernels& chosen = table(simd::active_level());
    return chosen;
}

const CodeKernels& code_kernels(simd::Level level) {
    const auto& available = simd::available_levels();
    if (std::find(available.begin(), available.end(), level) == available.end()) {
        throw InvalidArgument("the instruction set must be available on this machine, got '" +
                              std::string(simd::level_name(level)) + "'");
    }
    return table(level);
}

void pack_nibbles(std::span<const std::uint8_t> values, std::span<std::uint8_t> packed) {
    if (packed.size() != nibble_bytes(values.size())) {
        throw InvalidArgument("packed must have " + std::to_string(nibble_bytes(values.size())) + " bytes for " +
                              std::to_string(values.size()) + " values of 4 bits, got " +
                              std::to_string(packed.size()));
    }
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (values[i] > 15) {
            throw InvalidArgument("values of 4 bits must be between 0 and 15, got " + std::to_string(values[i]) +
                                  " at " + std::to_string(i));
        }
    }
    for (std::size_t at = 0; at < values.size(); at += 128) {
        const std::size_t count = std::min<std::size_t>(128, values.size() - at);
        const std::size_t half = (count + 1) / 2;
        for (std::size_t i = 0; i < half; ++i) {
            const unsigned high = half + i < count ? values[at + half + i] : 0U;
            packed[at / 2 + i] = static_cast<std::uint8_t>(values[at + i] | (high << 4U));
        }
    }
}

}  // namespace sage::distance
