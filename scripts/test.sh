#!/usr/bin/env bash
# Runs every test; kernel and lab tests too (they need root, and say so without it).
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m pytest "$@"
echo "test: done. Try next: make egress-setup"
