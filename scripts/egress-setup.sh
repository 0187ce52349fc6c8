#!/usr/bin/env bash
# Starts the lab, its pods and its policies, and shows which addresses the outside sees.
# Repeatable: on a running lab it only checks.
# Environment: IP_FAMILY, which addresses the lab has: ipv4 (default), dual or ipv6.
set -euo pipefail
cd "$(dirname "$0")/.."
family=${IP_FAMILY:-ipv4}

say() { printf 'egress-setup: %s\n' "$*"; }

# For each policy of the lab: its name, the name of the server, the address it must see.
ipv4="egress-all echo 172.18.0.5"
ipv6="egress-all-ipv6 echo6 fc00:f853:ccd:e793::5"
case $family in
ipv4) policies=("$ipv4") ;;
dual) policies=("$ipv4" "$ipv6") ;;
ipv6) policies=("$ipv6") ;;
*)
  say "IP_FAMILY: '$family' is none of ipv4, dual, ipv6"
  exit 1
  ;;
esac

pods() { kubectl -n default get pod -l name=net-tshoot -o name; }

# One line a pod: its name and the address that the server $1 saw.
seen() {
  for pod in $(pods); do
    printf '%s %s\n' "$pod" "$(kubectl -n default exec "$pod" -- wget -T 5 -q -O - "$1")"
  done
}

# Whether the lines $1 all end with the address $2.
all_end_with() {
  [[ -n $1 && $(grep -c " $2\$" <<<"$1") -eq $(wc -l <<<"$1") ]]
}

.venv/bin/outgate lab up --ip-family "$family"
say "applying the policies' definitions and the pods"
kubectl apply -f deploy/crds -f deploy/lab/net-tshoot.yaml
kubectl wait --for=condition=Established --timeout=30s crd/ciliumegressnatpolicies.cilium.io
kubectl -n default wait --for=condition=Ready --timeout=60s pod -l name=net-tshoot
for policy in "${policies[@]}"; do
  read -r name server egress_ip <<<"$policy"
  if ! kubectl get ciliumegressnatpolicy "$name" >/dev/null 2>&1; then
    say "before the policy, $server sees each node's own address:"
    seen "$server"
  fi
  say "applying the policy: pods of namespace default leave as $egress_ip"
  kubectl apply -f "deploy/lab/$name.yaml"
  for _ in $(seq 20); do
    result=$(seen "$server") || result=""
    all_end_with "$result" "$egress_ip" && break
    sleep 0.5
  done
  say "what $server saw, for each pod:"
  printf '%s\n' "$result"
  if ! all_end_with "$result" "$egress_ip"; then
    say "that is not $egress_ip for each pod; look at: .venv/bin/outgate lab status," \
      "kubectl -n cilium logs -l k8s-app=cilium"
    exit 1
  fi
done
say "done. Try next: kubectl get pod -owide; kubectl get ciliumegressnatpolicy;" \
  "kubectl -n cilium get pod"
