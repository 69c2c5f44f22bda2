// The errors that the native libraries throw.
#pragma once

#include <stdexcept>
#include <string>

namespace sage {

// Base of every error of ours. what() names the rule, the offending value and the likely mistake.
class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

// An argument or a setting that breaks a documented rule. Nothing was changed.
class InvalidArgument : public Error {
public:
    using Error::Error;
};

// Something that was asked for by name or id does not exist.
class NotFound : public Error {
public:
    using Error::Error;
};

// The operating system refused an operation on a file. code() is its errno.
class IoError : public Error {
public:
    IoError(const std::string& message, int code) : Error(message), code_(code) {}
    [[nodiscard]] int code() const noexcept { return code_; }

private:
    int code_;
};

// A file of ours whose content was damaged. what() names the file, the offset and what was expected there.
class Corruption : public Error {
public:
    using Error::Error;
};

// A file that is none of ours, belongs to something else, or was written by a newer version.
class UnsupportedFormat : public Error {
public:
    using Error::Error;
};

// A store that another process has open for writing, or that was opened before a fork.
class StoreLocked : public Error {
public:
    using Error::Error;
};

}  // namespace sage
