"""Look inside a model: capture quantities layer by layer, and measure what they say."""
