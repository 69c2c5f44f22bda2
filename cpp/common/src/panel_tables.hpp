// The tables of panel kernels, one per translation unit. Internal; declarations only, like kernel_tables.hpp.
#pragma once

#include "sage/common/panel.hpp"

namespace sage::distance {

extern const PanelKernels scalar_panel_kernels;
extern const PanelKernels avx2_panel_kernels;
extern const PanelKernels avx512_panel_kernels;

}  // namespace sage::distance
