"""Looks at a device and says in words what is wrong, what it means and what to do. Changes nothing, runs no agent."""
