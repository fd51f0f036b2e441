"""Simulations of estimators and intervals: what they are off by, how often they hold the truth."""
