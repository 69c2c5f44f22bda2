// Maps the errors of the C++ libraries onto sage.common.errors. Internal to the extension modules.
#pragma once

namespace sage::bindings {

// Call once in PYBIND11_MODULE; concerns that module only.
void register_error_translator();

}  // namespace sage::bindings
