"""Virtual devices over the strategies and the admission that a live run has: ``fogline simulate``."""
