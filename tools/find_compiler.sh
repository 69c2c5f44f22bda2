#!/bin/sh
# Prints the C++ compiler that the build will use (the CXX variable, else c++, g++, clang++), or says what to install.
set -u

for candidate in ${CXX:-c++ g++ clang++}; do
    if command -v "$candidate" >/dev/null 2>&1; then
        command -v "$candidate"
        exit 0
    fi
done

{
    if [ -n "${CXX:-}" ]; then
        echo "SAGE needs a C++20 compiler, and CXX names one that is not on the PATH: '$CXX'."
    else
        echo "SAGE needs a C++20 compiler, and none of c++, g++, clang++ is on the PATH."
    fi
    echo "  Debian, Ubuntu:  apt-get install g++"
    echo "  Fedora:          dnf install gcc-c++"
    echo "  macOS:           xcode-select --install"
    echo "GCC 12 or newer, or Clang 14 or newer; then run the same command again."
} >&2
exit 1
