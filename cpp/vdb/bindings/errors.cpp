#include "errors.hpp"

#include <pybind11/pybind11.h>

#include <cerrno>
#include <exception>

#include "sage/common/error.hpp"

namespace py = pybind11;

namespace sage::bindings {
namespace {

void set_error(const char* class_name, const char* message) {
    // Looked up when thrown: importing the module does not have to import sage.common. The class has to be there,
    // sage-middleware depends on sage-common; if it is not, its ImportError is what the user should see.
    try {
        const py::object error = py::module_::import("sage.common.errors").attr(class_name);
        py::set_error(error, message);
    } catch (py::error_already_set& missing) {
        missing.restore();
    }
}

void translate(std::exception_ptr pointer) {
    try {
        if (pointer) {
            std::rethrow_exception(pointer);
        }
    } catch (const InvalidArgument& error) {
        set_error("InvalidArgumentError", error.what());
    } catch (const NotFound& error) {
        set_error("InvalidArgumentError", error.what());
    } catch (const IoError& error) {
        const bool full = error.code() == ENOSPC || error.code() == EDQUOT || error.code() == EFBIG;
        set_error(full ? "StoreFullError" : "StoreError", error.what());
    } catch (const Corruption& error) {
        set_error("StoreError", error.what());
    } catch (const UnsupportedFormat& error) {
        set_error("StoreError", error.what());
    } catch (const StoreLocked& error) {
        set_error("StoreError", error.what());
    } catch (const Error& error) {
        set_error("SageError", error.what());
    }
}

}  // namespace

void register_error_translator() { py::register_local_exception_translator(&translate); }

}  // namespace sage::bindings
