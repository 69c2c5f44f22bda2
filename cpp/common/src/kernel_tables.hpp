// The tables of kernels, one per translation unit. Internal; declarations only, so that nothing is compiled
// twice with different instruction sets.
#pragma once

#include "sage/common/distance.hpp"

namespace sage::distance {

extern const Kernels scalar_kernels;
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
extern const Kernels neon_kernels;

}  // namespace sage::distance
