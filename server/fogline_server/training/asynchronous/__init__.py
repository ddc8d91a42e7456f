"""Runs that step when a buffer of updates is full, whoever is still at work (FedBuff)."""
