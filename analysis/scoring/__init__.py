"""From answers to scores, and from scores to estimates with intervals."""
