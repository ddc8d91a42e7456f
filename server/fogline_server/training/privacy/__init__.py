"""Differential privacy of federated rounds: what it costs, and what a cohort can have for it."""
