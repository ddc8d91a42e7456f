"""Whether a desired artifact is one that its publisher has signed: TUF on the device. See docs/trust.md.

Verification runs in a process of its own that exists only while it checks: the agent then needs neither python-tuf nor
cryptography in its memory, and what parses foreign metadata can be killed at its deadline.
"""
