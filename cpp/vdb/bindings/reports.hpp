// What the library says about itself, as dicts by name. Internal to the extension modules.
#pragma once

#include <pybind11/pybind11.h>

#include "sage/vdb/database.hpp"

namespace sage::bindings {

[[nodiscard]] pybind11::dict report_of(const vdb::DatabaseStats& stats);
[[nodiscard]] pybind11::dict report_of(const vdb::VerifyReport& report);
[[nodiscard]] pybind11::dict report_of(const vdb::CollectionStats& stats);
[[nodiscard]] pybind11::dict report_of(const vdb::CollectionOptions& options);

}  // namespace sage::bindings
