#!/usr/bin/env bash
# Runs every test; kernel and lab tests too (they need root, and say so without it).
# Those against a real API server follow where its programs were built before.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m pytest "$@"
if (($# == 0)); then
  scripts/test-apiserver.sh cached -q
fi
echo "test: done. Try next: make egress-setup"
