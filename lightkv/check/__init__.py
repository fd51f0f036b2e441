"""Validate a model before anyone trusts a number: ``lightkv check``."""
