"""One file an op: what it means. Shape checks, forward, backward, and the public docstring."""
