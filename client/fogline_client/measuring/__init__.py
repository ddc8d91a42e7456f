"""Measure an artifact on this device, beside the model that serves and without touching it."""
