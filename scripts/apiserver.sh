#!/usr/bin/env bash
# Builds kube-apiserver and etcd for tests/apiserver, or finds those that it built before,
# and prints the folder that holds them.  tests/apiserver/servers/go.mod names the versions.
# Argument: "build" (default), or "cached", which never builds.
# Where they cannot be had, one line on standard error says why and the exit status is 3.
# A first build fetches 300 MB of Go modules and keeps two cores busy for some ten minutes.
set -euo pipefail
cd "$(dirname "$0")/../tests/apiserver/servers"

version=$(sed -n 's|^\tk8s.io/kubernetes v||p' go.mod)
recipe=$(sha256sum go.mod go.sum | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/outgate/apiserver
folder=$cache/v$version-$recipe

say() { printf '%s\n' "$*" >&2; }
cannot() {
  say "$*"
  exit 3
}

if [[ -x $folder/kube-apiserver && -x $folder/etcd ]]; then
  echo "$folder"
  exit
fi
[[ ${1:-build} == cached ]] && cannot "no cached build (make test-apiserver makes one)"

command -v go >/dev/null || cannot "no Go on this machine to build kube-apiserver $version with"
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [[ ! -x $folder/kube-apiserver ]]; then
  for place in "$cache" "$(go env GOCACHE)" "$(go env GOMODCACHE)"; do
    mkdir -p "$place"
    (($(df --output=avail -m "$place" | tail -n 1) > 4096)) ||
      cannot "building kube-apiserver $version needs 4 GB, which $place does not have"
  done
  log=$cache/build.log
  say "building kube-apiserver $version and its etcd, once (log: $log)"
  go mod download k8s.io/kubernetes go.etcd.io/etcd/server/v3 >"$log" 2>&1 ||
    cannot "Go modules of kube-apiserver $version cannot be had: $(tail -n 1 "$log")"
  stamp="-s -w"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    stamp+=" -X $package.gitVersion=v$version -X $package.gitTreeState=clean"
    stamp+=" -X $package.gitMajor=${version%%.*} -X $package.gitMinor=$(cut -d. -f2 <<<"$version")"
  done
  new=$(mktemp -d "$cache/new.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  while read -r program package; do
    nice -n 19 go build -mod=readonly -buildvcs=false -trimpath -ldflags "$stamp" \
      -o "$new/$program" "$package" >>"$log" 2>&1 ||
      cannot "$program of kube-apiserver $version does not build: $(tail -n 1 "$log")"
  done <<'PROGRAMS'
etcd go.etcd.io/etcd/server/v3
kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
PROGRAMS
  rm -rf "$folder"
  mv "$new" "$folder"
fi
echo "$folder"
