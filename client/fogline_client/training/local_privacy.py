"""This device's own account of local privacy: what it lets out, and what it has let out in its life.

The ledger is a file beside the recipe's memory. It is written before an answer exists, so that whatever is sent was charged; an
answer that was lost with the power and is worked out again is the same to the last bit (its noise is drawn from this device's
secret and the update), and costs nothing more.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fogline_client import durable
from fogline_shared.errors import Conflict, Corrupt
from fogline_shared.privacy.accountant import Releases, epsilon
from fogline_shared.privacy.local import Local, Protected


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a device may ever tell: ``epsilon`` None is without bound, ``delta`` as its ledger is reckoned."""

    epsilon: float | None = None
    delta: float = 1e-5


class Ledger:
    """``path`` None: in memory, for a device that lives as long as its process.

    Raises Corrupt ``bad_privacy_ledger``: what was let out before is unknown, so nothing more is.
    """

    def __init__(self, path: Path | None = None, budget: Budget | None = None) -> None:
        self._path, self._budget = path, budget or Budget()
        kept = None if path is None else durable.read_json(path, code="bad_privacy_ledger")
        if kept is None:
            kept = {"secret": secrets.token_hex(32), "last": "", "rounds": {}}
        try:
            self._secret, self._last = bytes.fromhex(kept["secret"]), str(kept["last"])
            self._rounds = {float(noise): int(count) for noise, count in kept["rounds"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Corrupt("bad_privacy_ledger", f"{path} is no ledger: {error!r}") from error

    def check(self, local: Local | None, *, what: str) -> None:
        """Before anything is worked out.

        Raises Conflict ``local_privacy_required`` for work whose answer this device's budget does not allow without noise,
        ``local_budget_spent`` when one more answer would overspend it.
        """
        limit = self._budget.epsilon
        if limit is None:
            return
        if local is None:
            raise Conflict("local_privacy_required", f"this device answers no {what} without local privacy")
        then = epsilon(self._releases(local.noise_multiplier), self._budget.delta)
        if then > limit:
            spent = epsilon(self._releases(), self._budget.delta)
            text = (
                f"this device may tell ε {limit:g} in its life and has told {spent:.3f}; one more would be {then:.3f}"
            )
            raise Conflict("local_budget_spent", text)

    def release(self, local: Local, trained: Mapping[str, NDArray[Any]], sent: Mapping[str, NDArray[Any]]) -> Protected:
        """Clip, add noise, and charge it; raises what :meth:`check` raises, and Exhausted ``disk_full``."""
        protected = local.protect(trained, sent, self._secret)
        if protected.fingerprint != self._last:
            self.check(local, what="training")
            noise = local.noise_multiplier
            rounds = {**self._rounds, noise: self._rounds.get(noise, 0) + 1}
            self._write(rounds, protected.fingerprint)
            self._rounds, self._last = rounds, protected.fingerprint
        return protected

    def _releases(self, *more: float) -> list[Releases]:
        one_more = [Releases(noise_multiplier=noise, rounds=1) for noise in more]
        return [*(Releases(noise_multiplier=noise, rounds=count) for noise, count in self._rounds.items()), *one_more]

    def _write(self, rounds: Mapping[float, int], last: str) -> None:
        if self._path is None:
            return
        told = {repr(noise): count for noise, count in rounds.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # The secret takes the noise off what this device has sent.
        durable.write_json(self._path, {"secret": self._secret.hex(), "last": last, "rounds": told}, mode=0o600)
