"""
Where desired input comes from: a Kubernetes API server, or YAML and JSON files.

What it is: the doors through which objects become the values of ``policy.model``.
What it is not: a place of decisions; ``policy`` compiles, ``reconcile`` acts.

``watch`` decides and is pure; ``informer`` drives it with ``client``, which alone
speaks HTTP; ``kubernetes`` adds informers up to a cluster.  ``peer`` and ``shrink``
keep what a broken source says out of it.
"""
