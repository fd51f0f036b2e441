"""Studies of key-value caches: run questions through a model, measure, aggregate, store."""
