"""What evictors are composed of: budgets, rankings, selections, merges, decode policies."""
