"""Celery's Redis transport with the bookkeeping of acknowledgements left out: a message is a ring, and may be lost.

kombu keeps unacknowledged messages in Redis and puts them back when a connection ends. SQL and the reconciler do that
job here, and kombu's way fails when it would be needed: at the end of a Redis that holds messages in work, its close
raises and the worker takes nothing new until its running jobs have ended (kombu 5.7).
"""

from __future__ import annotations

from kombu.transport import redis


class Channel(redis.Channel):
    """Takes a message off its queue for good; counts in memory what is in work, to hold back the next."""

    ack_emulation = False
    do_restore = False


class Transport(redis.Transport):
    Channel = Channel
