"""What a request costs in FLOPs and bytes, from dimensions and a schedule; nothing is run."""
