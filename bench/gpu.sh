#!/usr/bin/env bash
# Length policies on one GPU, in one command and less than 8 minutes.
#
#   bench/gpu.sh [RESULT.json] [more options of `foretoken bench`]
#
# The targets are the built-in one, grown to 1.3 and 7.5 billion weights: the acceptance of a trained pair at the cost
# of a large target. RESULT.json (default: gpu.json) holds for every target what `foretoken bench` found (`runs`), and,
# measured apart since it slows a GPU down, where the time of a step goes (`profiles`); docs/bench.md explains the
# fields. What is done when time is up is kept, and `complete` is false. Grown targets stay in ~/.cache/foretoken/grown
# (18 GB).
#
# Environment: GROW (targets), LIMIT (prompts), TOKENS (new tokens), DEVICE, BACKEND, ALLOWED (seconds), FORETOKEN, PYTHON.
set -euo pipefail
result=${1:-gpu.json}
shift $(($# > 0))
allowed=${ALLOWED:-450}
root=$(cd "$(dirname "$0")/.." && pwd)
foretoken=${FORETOKEN:-$(command -v foretoken || echo "$root/.venv/bin/foretoken")}
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
touch "$result" "$parts/runs" "$parts/profiles"
complete=true

measure() { # NAME PROMPTS OPTIONS...: one line of JSON per target, until time is up
  local name=$1 limit=$2 left=$((allowed - SECONDS)) code=0
  shift 2
  if ((left > 0)); then
    timeout --signal INT --kill-after 10 "$left" "$foretoken" bench --json --no-baseline --device "${DEVICE:-cuda}" \
      --backend "${BACKEND:-graphs}" \
      --dtype bfloat16 --grow-target "${GROW:-128x,768x}" --limit "$limit" --max-new-tokens "${TOKENS:-128}" "$@" \
      >"$parts/$name" || code=$?
  else
    code=124
  fi
  if ((code == 124 || code == 137)); then
    echo "time is up; $name are not complete" >&2
    complete=false
  elif ((code)); then
    exit "$code"
  fi
}

measure runs "${LIMIT:-8}" --methods plain,fixed:1..8,confidence,renewal,oracle "$@"
measure profiles 2 --methods plain,fixed:3,renewal --profile "$@"

"${PYTHON:-python3}" - "$parts" "$complete" >"$parts/result" <<'PYTHON'
import datetime
import json
import pathlib
import sys

parts, complete = pathlib.Path(sys.argv[1]), sys.argv[2] == "true"
found = {}
for name in ("runs", "profiles"):
    whole = [line for line in (parts / name).read_text().splitlines(keepends=True) if line.endswith("\n")]
    found[name] = [json.loads(line) for line in whole]
    for run in found[name]:
        del run["samples"], run["prompts"]  # what every number was made from is long
        del run["growth"]["folder"]  # and where a target was kept says nothing elsewhere
device = next((run["hardware"]["gpu"] or run["hardware"]["cpu"] for run in found["runs"]), None)
head = {"schema": "foretoken.gpu/1", "date": str(datetime.date.today()), "device": device, "complete": complete}
print(json.dumps(head | found, indent=1))
PYTHON
mv "$parts/result" "$result"
echo "$result: $SECONDS s" >&2
