#!/usr/bin/env bash
# Lints and tests the repository. Arguments go to pytest.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

ruff check .
ruff format --check .
# Apart, because software OpenGL and TensorFlow crash in one process.
python -m pytest tests/envs "$@"
python -m pytest "$@"
