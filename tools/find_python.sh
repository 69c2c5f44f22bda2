#!/bin/sh
# Prints the first Python on the PATH that can build and run SAGE, or says why each candidate cannot.
#
# Usage: tools/find_python.sh [CANDIDATE...]
#
# A name on the PATH is not enough: version managers leave shims for versions that are not active, and Debian ships
# Python without venv and without headers unless asked. So every candidate is run.
set -u

if [ "$#" -eq 0 ]; then
    set -- python3.13 python3.12 python3.11 python3
fi

check='
import os, sys, sysconfig
if sys.version_info < (3, 11):
    sys.exit("is Python %d.%d, SAGE needs 3.11 or newer" % sys.version_info[:2])
try:
    import ensurepip, venv
except ImportError:
    sys.exit("has no venv module (Debian, Ubuntu: apt-get install python3-venv)")
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    sys.exit("has no C headers, Python.h (Debian, Ubuntu: apt-get install python3-dev)")
print(sys.executable)
'

reasons=""
for candidate in "$@"; do
    if ! command -v "$candidate" >/dev/null 2>&1; then
        reasons="$reasons  $candidate: not on the PATH
"
        continue
    fi
    if answer=$("$candidate" -c "$check" 2>&1); then
        echo "$answer"
        exit 0
    fi
    reasons="$reasons  $candidate: $(echo "$answer" | head -n 1)
"
done

{
    echo "SAGE needs Python 3.11 or newer with venv and C headers, and none of these will do:"
    printf '%s' "$reasons"
    echo "Install one, or name it: make dev PYTHON=/path/to/python3.11"
} >&2
exit 1
