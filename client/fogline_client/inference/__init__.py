"""From an artifact's bytes to predictions: engines run graphs, models check artifacts, the predictor swaps models."""
