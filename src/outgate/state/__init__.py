"""The words that both worlds share: what a node's kernel holds, as plain values."""
