"""Runs a compressor on an unmodified model: the graph, the state of a run, the cache it holds."""
