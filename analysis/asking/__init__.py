"""Ask a model the questions of a task under every method, and keep each answer."""
