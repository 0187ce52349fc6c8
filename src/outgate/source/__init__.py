"""
Where desired input comes from: a Kubernetes API server, or a folder of YAML.

What it is: the doors through which objects become the values of ``policy.model``.
What it is not: a place of decisions; ``policy`` compiles, ``reconcile`` acts.
``watch`` is pure, ``client`` alone speaks HTTP, ``kubernetes`` joins the two.
"""
