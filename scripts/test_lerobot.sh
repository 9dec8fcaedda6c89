#!/usr/bin/env bash
# Tests of moto_tf with the real LeRobot: its datasets there and back, and the
# plug-in lerobot_policy_moto. Not part of scripts/test.sh, since LeRobot brings
# PyTorch, several GB. Options go to pytest.
# MOTO_LEROBOT_VENV: environment with LeRobot, by default .venv-lerobot, made if
# it is missing. PYTHON: a Python 3.12 or newer that makes it. MOTO_LEROBOT_DATA:
# folder of what is recorded and trained, by default a new one.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
REQUIREMENTS=requirements-test.txt source scripts/setup.sh

lerobot="${MOTO_LEROBOT_VENV:-$PWD/.venv-lerobot}"
data="${MOTO_LEROBOT_DATA:-$(mktemp -d)}"
if ! "$lerobot/bin/python" -c 'import lerobot' 2>/dev/null; then
  "${PYTHON:-python3.12}" -m venv "$lerobot"
fi
"$lerobot/bin/python" -m pip install --quiet './lerobot_policy_moto[test]'

if [[ ! -e "$data/exported" ]]; then
  echo '== Recording, training for seconds, exporting'
  task=(--task metaworld_drawer-open --env.time_limit 60)
  python scripts/collect.py "${task[@]}" --episodes 3 --outdir "$data/demos"
  python scripts/train.py --configs metaworld debug "${task[@]}" \
    --logdir "$data/run" --offline_data "$data/demos" \
    --encoder.mlp_keys state --online_steps 0
  python scripts/export_policy.py --logdir "$data/run" --out "$data/exported"
  for images in png video; do
    python scripts/dataset.py export "$data/demos" "$data/datasets" \
      --format lerobot --id "moto/$images" --images "$images"
  done
fi

echo '== LeRobot'
rm -rf "$data/recorded"
MOTO_LEROBOT_DATA="$data" HF_HUB_OFFLINE=1 HF_HOME="$data/hf" \
  "$lerobot/bin/python" -m pytest -q -rs lerobot_policy_moto/tests "$@"

echo "== What LeRobot recorded, imported"
rm -rf "$data/imported"
python scripts/dataset.py import --format lerobot "$data/recorded" \
  "$data/imported" --task gym_Robot-v0 --env.image_size 32 \
  --env.extra_size 24 --env.extra_camera wrist
python lerobot_policy_moto/tests/check_import.py "$data"
