"""Signed metadata: what a device's check of an unchanged repository costs, and what listing one more artifact among many does.

CPU time: the checking process and the coordinator wait for disks and networks that are not measured here.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from harness import Figure, Options

from fogline_client.trust.check import pin
from fogline_client.trust.layout import TrustDir, Wanted
from fogline_client.trust.verify import verify
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.schema import create_all
from fogline_server.trust import publish, store
from fogline_server.trust.development import ensure_root
from fogline_server.trust.keys import OnlineKeys
from fogline_server.trust.model import Listed
from fogline_shared.errors import NotFound

REFRESH_BYTES, REFRESH_MS, PUBLISH_MS = 1000, 15.0, 100.0


def measure(options: Options) -> list[Figure]:
    """Bytes and time of an unchanged refresh; time to publish one artifact beside a thousand."""
    with tempfile.TemporaryDirectory() as folder:
        db = Database(f"sqlite:///{Path(folder) / 'fogline.db'}")
        create_all(db)
        keys = OnlineKeys(Path(folder) / "trust")
        ensure_root(db, keys, trust_dir=keys.folder, allowed=True, now=utc_now())
        times = 3 if options.quick else 50
        few = _refresh(db, keys, TrustDir(path=Path(folder) / "few"), times=times)
        listing_s = _publish(db, keys, count=100 if options.quick else 1000, times=times)
        many = _refresh(db, keys, TrustDir(path=Path(folder) / "many"), times=times)
        db.dispose()
    return [
        _figure("unchanged refresh of trust, bytes", "B", few[0], REFRESH_BYTES),
        _figure("unchanged refresh of trust, CPU", "ms", few[1] * 1e3, REFRESH_MS),
        _figure("unchanged refresh of trust, 1,000 artifacts listed, bytes", "B", many[0], REFRESH_BYTES),
        _figure("unchanged refresh of trust, 1,000 artifacts listed, CPU", "ms", many[1] * 1e3, REFRESH_MS),
        _figure("publish an artifact beside 1,000, CPU", "ms", listing_s * 1e3, PUBLISH_MS),
    ]


def _figure(name: str, unit: str, ours: float, limit: float) -> Figure:
    return Figure(name=name, unit=unit, ours=ours, peer=limit, peer_name="limit", target=1.0)


def _listed(number: int) -> Listed:
    return Listed(
        release_id=f"rel_{number:022x}",
        variant="student_int8",
        digest=f"{number:064x}",
        size=18_000,
        recipe="smartwatch",
    )


def _publish(db: Database, keys: OnlineKeys, *, count: int, times: int) -> float:
    with db.transaction() as session:
        publish.publish(session, keys, [_listed(number) for number in range(count)], now=utc_now())
    taken = []
    for number in range(times):
        begin = time.process_time()
        with db.transaction() as session:
            publish.publish(session, keys, [_listed(count + number)], now=utc_now())
        taken.append(time.process_time() - begin)
    return statistics.median(taken)


def _refresh(db: Database, keys: OnlineKeys, trust: TrustDir, *, times: int) -> tuple[float, float]:
    """Bytes that come, and CPU seconds, once the device has seen what there is."""
    came = [0]

    def fetch(name: str) -> bytes | None:
        with db.read() as session:
            try:
                data = store.document(session, name)
            except NotFound:
                return None
        came[0] += len(data)
        return data

    listed = _listed(0)
    with db.transaction() as session:
        publish.publish(session, keys, [listed], now=utc_now())
    pin(trust, fetch("root.json") or b"")
    wanted = Wanted(release_id=listed.release_id, variant=listed.variant, digest=listed.digest, size=listed.size)
    verify(trust, wanted, fetch, now=utc_now())
    taken = []
    for _ in range(times):
        came[0], begin = 0, time.process_time()
        verify(trust, wanted, fetch, now=utc_now())
        taken.append(time.process_time() - begin)
    return came[0], statistics.median(taken)
