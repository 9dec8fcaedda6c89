#!/usr/bin/env bash
# Lints and tests the repository. Options go to pytest, such as -k replay.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
REQUIREMENTS=requirements-test.txt source scripts/setup.sh

ruff check .
ruff format --check .
# Side by side on up to four cores, a file's tests in one process, since they
# share what they set up. Exit code 5: no test selected, which -k may do to one
# part of them.
cores="$(nproc)"
tests() {
  python -m pytest --numprocesses "$((cores > 4 ? 4 : cores))" \
    --dist loadfile "$@" || [[ $? == 5 ]]
}

# Apart, because software OpenGL and TensorFlow crash in one process.
tests tests/envs "$@"
tests tests "$@"
