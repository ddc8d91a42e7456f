"""The agent as a service of systemd: what it tells its manager, and the unit that starts it."""
