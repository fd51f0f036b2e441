"""Benchmarks of lmms-eval: asked by our own evaluation, or by its command line through a plugin."""
