#!/usr/bin/env bash
# Runs every test; kernel and lab tests too (they need root, and say so without it).
# Those against a real API server follow where its programs were built before.
set -euo pipefail
cd "$(dirname "$0")/.."
if (($# > 0)); then
  exec .venv/bin/python -m pytest "$@"
fi
# Two at a time; but a lab has the machine's names to itself, and a benchmark its time.
.venv/bin/python -m pytest -n 2 --ignore=tests/lab --ignore=tests/bench
.venv/bin/python -m pytest tests/lab tests/bench
scripts/test-apiserver.sh cached -q
echo "test: done. Try next: make egress-setup"
