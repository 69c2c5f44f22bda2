#include "sage/common/panel.hpp"

#include <algorithm>
#include <string>

#include "panel_tables.hpp"
#include "sage/common/error.hpp"

namespace sage::distance {
namespace {

const PanelKernels& table(simd::Level level) {
#ifdef SAGE_HAVE_AVX512
    if (level == simd::Level::avx512 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni")) {
        return avx512_panel_kernels;
    }
#endif
#ifdef SAGE_HAVE_AVX2
    if (level >= simd::Level::avx2) {
        return avx2_panel_kernels;
    }
#endif
    static_cast<void>(level);
    return scalar_panel_kernels;
}

}  // namespace

const PanelKernels& panel_kernels() {
    static const PanelKernels& chosen = table(simd::active_level());
    return chosen;
}

const PanelKernels& panel_kernels(simd::Level level) {
    const auto& available = simd::available_levels();
    if (std::find(available.begin(), available.end(), level) == available.end()) {
        throw InvalidArgument("the instruction set must be available on this machine, got '" +
                              std::string(simd::level_name(level)) + "'");
    }
    return table(level);
}

}  // namespace sage::distance
