"""Runs in which device classes train models of different sizes, whose ensemble teaches the run's own size at the cloud."""
