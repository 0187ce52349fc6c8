#!/usr/bin/env bash
# Runs tests against a real kube-apiserver with etcd, and ends with one line about them.
# Argument: "build" (default), or "cached", which runs only with programs built before; what
# follows goes to pytest.  That no server can be had is no failure: the line says why.
set -euo pipefail
cd "$(dirname "$0")/.."
how=${1:-build}
shift || true
why=$(mktemp)
trap 'rm -f "$why"' EXIT

programs=$(scripts/apiserver.sh "$how" 2> >(tee "$why" >&2)) || {
  status=$?
  if ((status == 3)); then
    echo "apiserver: not run: $(tail -n 1 "$why")"
    exit 0
  fi
  exit "$status"
}
name=$(basename "$programs")
if .venv/bin/python tests/apiserver/run.py "$programs" "$@"; then
  echo "apiserver: passed, against kube-apiserver ${name%-*} with etcd"
else
  echo "apiserver: failed, against kube-apiserver ${name%-*} with etcd"
  exit 1
fi
