#!/usr/bin/env bash
# Lints and tests the repository. Options go to pytest, such as -k replay.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
REQUIREMENTS=requirements-test.txt source scripts/setup.sh

ruff check .
ruff format --check .
# Exit code 5: no test selected, which -k may do to one part of them.
tests() {
  python -m pytest "$@" || [[ $? == 5 ]]
}

# Apart, because software OpenGL and TensorFlow crash in one process.
tests tests/envs "$@"
tests tests "$@"
