#!/usr/bin/env bash
# Lints and tests the repository. Arguments go to pytest.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

ruff check .
ruff format --check .
python -m pytest "$@"
