"""One agent per node: joins source, compiler, kernel and loop, and answers for them."""
