"""A gateway on loopback, and agents that are real processes."""

from agent_plant import authority, cloud, enrolled, gateway, online_keys, options, proxy, token

__all__ = ["authority", "cloud", "enrolled", "gateway", "online_keys", "options", "proxy", "token"]
