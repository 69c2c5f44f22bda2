#include "sage/common/cpu.hpp"

#include <cstdlib>
#include <string>

#include "sage/common/error.hpp"

namespace sage::simd {
namespace {

std::vector<Level> detect_levels() {
    std::vector<Level> levels{Level::scalar};
#ifdef SAGE_HAVE_NEON
    levels.push_back(Level::neon);
#endif
    // These builtins also ask whether the operating system saves the wide registers.
#ifdef SAGE_HAVE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        levels.push_back(Level::avx2);
    }
#endif
#ifdef SAGE_HAVE_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        levels.push_back(Level::avx512);
    }
#endif
    return levels;
}

std::optional<std::string_view> requested_level() {
    // Nobody in these libraries calls setenv, and the caller decides once: the race that the linter
    // warns of needs a program that changes its environment while it makes its first search.
    const char* value = std::getenv("SAGE_SIMD");  // NOLINT(concurrency-mt-unsafe)
    return value == nullptr ? std::nullopt : std::optional<std::string_view>(value);
}

}  // namespace

std::string_view level_name(Level level) noexcept {
    switch (level) {
        case Level::scalar: return "scalar";
        case Level::neon: return "neon";
        case Level::avx2: return "avx2";
        case Level::avx512: return "avx512";
    }
    return "unknown";
}

const std::vector<Level>& available_levels() {
    static const std::vector<Level> levels = detect_levels();
    return levels;
}

Level choose_level(std::optional<std::string_view> requested, const std::vector<Level>& available) {
    if (!requested || requested->empty()) {
        return available.back();
    }
    std::string offered;
    for (const Level level : available) {
        if (level_name(level) == *requested) {
            return level;
        }
        offered.append(offered.empty() ? "" : ", ").append(level_name(level));
    }
    throw InvalidArgument("SAGE_SIMD must name an instruction set of this machine (" + offered + "), got '" +
                          std::string(*requested) + "'; unset it to use the best one");
}

Level active_level() {
    // When the choice throws, the next call tries again: the error is not seen once and then forgotten.
    static const Level level = choose_level(requested_level(), available_levels());
    return level;
}

}  // namespace sage::simd
