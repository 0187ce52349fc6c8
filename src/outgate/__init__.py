"""Outgate: an eBPF egress gateway for Kubernetes.  ARCHITECTURE.md has the map."""
