"""Deltas between artifacts: built when a release is sealed, offered to each device by what it holds."""
