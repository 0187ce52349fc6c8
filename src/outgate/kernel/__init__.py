"""The kernel side: what this node holds, observed and changed; it sees no policy."""
