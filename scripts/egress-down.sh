#!/usr/bin/env bash
# Removes every trace of the lab; works on a lab that was killed half-way, and on none.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! [[ -x .venv/bin/outgate ]]; then
  echo "egress-down: nothing is installed here, so nothing was started from here"
  exit 0
fi
.venv/bin/outgate lab down
echo "egress-down: done. Start again with: make egress-setup"
