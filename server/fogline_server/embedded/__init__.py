"""Everything on one machine: the supervisor behind ``fogline up`` and the Redis it brings."""
