#!/usr/bin/env bash
# Starts the lab, its pods and its policy, and shows which address the outside sees.
# Repeatable: on a running lab it only checks.
set -euo pipefail
cd "$(dirname "$0")/.."
egress_ip=172.18.0.5

say() { printf 'egress-setup: %s\n' "$*"; }

pods() { kubectl -n default get pod -l name=net-tshoot -o name; }

# One line a pod: its name and the address that echo saw.
seen() {
  for pod in $(pods); do
    printf '%s %s\n' "$pod" "$(kubectl -n default exec "$pod" -- wget -T 5 -q -O - echo)"
  done
}

.venv/bin/outgate lab up
say "applying the policies' definitions and the pods"
kubectl apply -f deploy/crds -f deploy/lab/net-tshoot.yaml
kubectl wait --for=condition=Established --timeout=30s crd/ciliumegressnatpolicies.cilium.io
kubectl -n default wait --for=condition=Ready --timeout=60s pod -l name=net-tshoot
if ! kubectl get ciliumegressnatpolicy egress-all >/dev/null 2>&1; then
  say "before the policy, echo sees each node's own address:"
  seen
fi
say "applying the policy: pods of namespace default leave as $egress_ip"
kubectl apply -f deploy/lab/egress-all.yaml
for _ in $(seq 20); do
  result=$(seen) || result=""
  [[ -n $result && $(grep -c " $egress_ip\$" <<<"$result") -eq $(wc -l <<<"$result") ]] && break
  sleep 0.5
done
say "what echo saw, for each pod:"
printf '%s\n' "$result"
if [[ -z $result || $(grep -c " $egress_ip\$" <<<"$result") -ne $(wc -l <<<"$result") ]]; then
  say "that is not $egress_ip for each pod; look at: .venv/bin/outgate lab status," \
    "kubectl -n cilium logs -l k8s-app=cilium"
  exit 1
fi
say "done. Try next: kubectl get pod -owide; kubectl get ciliumegressnatpolicy;" \
  "kubectl -n cilium get pod"
