// The errors that the native libraries throw.
#pragma once

#include <stdexcept>

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

}  // namespace sage
