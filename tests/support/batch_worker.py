"""A worker process for fault tests: ``python batch_worker.py DATABASE_URL BLOBS`` runs queued jobs until it is killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tiny_release import engine_of

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.jobs.tables import Job


def main(url: str, folder: str) -> None:
    db = Database(url)
    engine = engine_of(db, BlobStore(Path(folder)), lease_s=1.0)
    while True:
        engine.reconcile()
        with db.read() as session:
            queued = session.query(Job.id).where(Job.state == "QUEUED").order_by(Job.id).first()
        if queued is None or engine.execute(queued[0]) is None:
            time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
