"""
The lab: a whole cluster on one machine, made from namespaces.

What this is: three nodes, their network, a server outside, pods by the reference
CNI plugins, an API for ``kubectl``, and an agent per node.  ``topology`` says what
there is, ``init`` makes it and is its first process, ``controlplane`` runs the API
and the kubelets in it, ``cluster`` is what ``outgate lab up|down|status`` calls.

What this is not: a container runtime.  There are no images: every process sees the
machine's own files through an overlay of its own, so it can change none of them.

Deleting this folder breaks no agent.
"""
