"""
A small embedded Kubernetes-style API, good enough for unmodified ``kubectl``.

What it is: the protocol (discovery, list, watch, patch, apply, tables, exec),
a store with one resourceVersion, and an HTTP server around both.

What it is not: a Kubernetes. Nothing here schedules, starts or garbage-collects
anything; ``server`` lists what is not faked. It knows nothing of egress and
imports nothing of this project outside its own folder.

Who calls it: the lab (``ApiServer`` with a ``PodBackend``), tests, and
``python -m outgate.kubeapi`` alone.
"""
