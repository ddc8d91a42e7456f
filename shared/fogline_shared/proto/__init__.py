"""Generated from edge.proto by `make proto`. Imported only by wire, the gateway and the agent's sync."""
