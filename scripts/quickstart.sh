#!/usr/bin/env bash
# From nothing to a fine-tuned policy: ten scripted demonstrations of
# drawer-open, offline pre-training, online fine-tuning, evaluation. Run again
# after an interruption to continue.
#
#   bash scripts/quickstart.sh [LOGROOT]    default: ~/logdir/quickstart

set -euo pipefail

LOGROOT="${1:-$HOME/logdir/quickstart}"
DEMOS="${DEMOS:-10}"                          # Demonstrations.
OFFLINE_STEPS="${OFFLINE_STEPS:-500}"         # Gradient steps.
ONLINE_STEPS="${ONLINE_STEPS:-1500}"          # Gradient steps.
EVAL_EVERY="${EVAL_EVERY:-500}"               # Gradient steps.
EVAL_EPISODES="${EVAL_EPISODES:-10}"          # Episodes during training.
FINAL_EPISODES="${FINAL_EPISODES:-20}"        # Episodes at the end.
TASK=metaworld_drawer-open

mkdir -p "$LOGROOT"
LOGROOT="$(cd "$LOGROOT" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

count="$(find "$LOGROOT" -path "$LOGROOT/demos/*.npz" | wc -l)"
if ((count < DEMOS)); then
  echo "== Recording $DEMOS demonstrations"
  python scripts/collect.py --task "$TASK" --episodes "$DEMOS" \
    --outdir "$LOGROOT/demos" --seed 0
fi

echo '== Training'
python scripts/train.py --configs metaworld small short --task "$TASK" \
  --logdir "$LOGROOT/moto/0" --offline_data "$LOGROOT/demos" \
  --offline_steps "$OFFLINE_STEPS" --online_steps "$ONLINE_STEPS" \
  --eval_every "$EVAL_EVERY" --eval_episodes "$EVAL_EPISODES"

echo '== Evaluating'
python scripts/evaluate.py --logdir "$LOGROOT/moto/0" \
  --episodes "$FINAL_EPISODES" --force

python - "$LOGROOT/moto/0/metrics.jsonl" <<'PYTHON'
import json
import sys

last = {}
with open(sys.argv[1]) as file:
  for row in map(json.loads, file):
    if 'eval/success' in row:
      last[row['phase']] = row
print('\n== Success rate')
for phase, when in (('offline', 'before'), ('online', 'after')):
  if phase in last:
    row = last[phase]
    print(
      f'{when:>6} fine-tuning: {row["eval/success"]:.0%}'
      f'  (gradient step {row["gradient_step"]})'
    )
PYTHON
echo "Videos: $LOGROOT/moto/0/videos"
echo "Curves: $venv/bin/tensorboard --logdir '$LOGROOT'"
