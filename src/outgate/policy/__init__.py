"""
Pure model and compiler: which entries a node's kernel should hold, and why.

What it is: Kubernetes JSON in (``parse``), values (``model``), snapshots out
(``compile``).  No I/O, no clock, no logger: it runs on a laptop without Linux, and
every agent that sees the same cluster computes the same entries.

What it is not: it neither fetches objects (``source``) nor touches a kernel.
"""
