// The tables of kernels over codes, one per translation unit. Internal; declarations only, like kernel_tables.hpp.
#pragma once

#include "sage/common/codes.hpp"

namespace sage::distance {

extern const CodeKernels scalar_code_kernels;
extern const CodeKernels avx2_code_kernels;
extern const CodeKernels avx512_code_kernels;

}  // namespace sage::distance
