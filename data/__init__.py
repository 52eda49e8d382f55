"""What lies on disk: feature stores, labels, splits, generated routines. Knows nothing of networks."""
