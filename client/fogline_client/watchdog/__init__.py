"""Looks after a model that is new on this device, and goes back to the one before without asking anybody. See ``docs/swaps.md``."""
