"""``fogline compress`` and ``fogline search``: quantities as people write them, the result as they read it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest
from parts import eventually
from sqlalchemy import select

from fogline_server.cli.api import CliError
from fogline_server.cli.exits import Exit
from fogline_server.cli.quantities import bytes_of, microseconds_of, share_of
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.jobs.tables import Job
from fogline_server.registry.tables import Alias, Measurement, Release
from fogline_server.search.tables import Search


def test_a_search_is_asked_for_with_units(fogline, sqlite_plant):
    limits = ("--max-bytes", "40 kB", "--max-p50", "2ms", "--max-drop", "0.5", "--max-worst-class-drop", "2")
    chains = ("--chain", "prune_channels:share=0.25,int8_static", "--chain", "float16")
    made = fogline("compress", "champion", *limits, *chains, "--steps", 90, "--name", "small", "--json").json
    assert made["spec"] == {
        "name": "small",
        "limits": {"max_bytes": 40_000, "max_p50_us": 2000.0, "max_drop": 0.005, "max_worst_class_drop": 0.02},
        "chains": [
            [{"method": "prune_channels", "options": {"share": 0.25}}, {"method": "int8_static", "options": {}}],
            [{"method": "float16", "options": {}}],
        ],
        "steps": 90,
        "seed": 0,
    }
    assert (made["state"], made["result"], made["release_id"]) == ("QUEUED", None, sqlite_plant.ids.release)
    assert fogline("search", "list", "--json").json[0]["id"] == made["id"]
    for wrong, code in (
        (("--max-bytes", "40 kilo"), "unreadable_quantity"),
        (("--max-p50", "2"), "unreadable_quantity"),
        (("--max-drop", "-1"), "unreadable_quantity"),
        (("--max-drop", "101"), "invalid_request"),
        (("--chain", "magic"), "unknown_method"),
        (("--chain", "int8_static,finetune"), "chain_order"),
        (("--steps", "0"), "invalid_search"),
        (("--name", "Not A Name"), "invalid_request"),
    ):
        said = fogline("compress", "champion", *wrong)
        assert (said.code, code in said.err) == (Exit.INVALID, True), said.err
    assert fogline("compress", "nobody").code == Exit.NOT_FOUND
    assert fogline("search", "show", "nobody").code == Exit.NOT_FOUND


CANDIDATE = {
    "number": 0,
    "name": "float16-c33fba",
    "chain": "float16",
    "trains": False,
    "single": True,
    "final": True,
    "front": True,
    "digest": None,
    "metrics": None,
    "rungs": [],
    "why_not": ["5671 bytes, 10 allowed"],
}
RESULT = {
    "candidates": [CANDIDATE],
    "cached": 1,
    "trials": 1,
    "front": [],
    "pick": None,
    "sentence": "none of 1 is within the limits",
    "best_single": None,
    "best_single_sentence": "none of 1 is within the limits",
    "evidence": {"kind": "holdout", "choosing": 100, "judging": 100},
    "release": None,
}


def conclude(db: Database, search_id: str, **found: object) -> None:
    with db.transaction() as session:
        search = session.get_one(Search, search_id)
        search.result = {**RESULT, **found}
        job = session.get_one(Job, search.job_id)
        job.state, job.finished_at = "SUCCEEDED", utc_now()


def test_a_search_that_finds_nothing_says_so(fogline, sqlite_plant):
    conclude(sqlite_plant.db, sqlite_plant.ids.search)
    shown = fogline("search", "show", sqlite_plant.ids.search)
    assert (shown.code, "5671 bytes, 10 allowed" in shown.out) == (0, True)
    assert "the holdout: 100 examples choose, 100 judge" in shown.out


def waited_for(fogline, plant, **found: object):
    """What ``compress --wait`` says of a search that comes to this meanwhile."""
    with plant.db.read() as session:
        before = session.scalars(select(Search.id)).all()

    def meanwhile() -> None:
        while True:
            with plant.db.read() as session:
                new = session.scalars(select(Search.id).where(Search.id.not_in(before))).all()
            if new:
                return conclude(plant.db, new[0], **found)
            time.sleep(0.02)

    worker = threading.Thread(target=meanwhile)
    worker.start()
    said = fogline("compress", "champion", "--wait")
    worker.join()
    return said


def test_waiting_for_a_search_ends_with_what_came_of_it_and_of_its_release(fogline, sqlite_plant):
    nothing = waited_for(fogline, sqlite_plant)
    assert (nothing.code, nothing.out.startswith("search_")) == (Exit.FAILED, True)
    assert "error: nothing_fits: none of 1 is within the limits" in nothing.err
    with sqlite_plant.db.transaction() as session:
        release = session.get_one(Release, sqlite_plant.ids.release)
        made = {"pick": "float16-c33fba", "release": {"id": release.id, "name": release.name}}
    assert waited_for(fogline, sqlite_plant, **made).code == Exit.OK
    with sqlite_plant.db.transaction() as session:
        release = session.get_one(Release, sqlite_plant.ids.release)
        release.state, release.error = "FAILED", {"code": "variant_accuracy_drop", "message": "it loses too much"}
        # The champion is looked up when a search is asked for.
        session.get_one(Alias, "champion").release_id = session.scalars(
            select(Release.id).where(Release.state == "READY")
        ).one()
    failed = waited_for(fogline, sqlite_plant, **made)
    assert (failed.code, "error: release_failed" in failed.err) == (Exit.FAILED, True)


def test_devices_of_a_class_have_the_last_word(fogline, sqlite_plant):
    db, ids = sqlite_plant.db, sqlite_plant.ids
    with db.transaction() as session:
        device = session.query(Device).filter(Device.lease_until > utc_now()).order_by(Device.id).first()
        device.device_class = "pi4"
        release = session.get_one(Release, ids.release).name
        before = session.scalars(select(Search.id).order_by(Search.id.desc())).first()

    def meanwhile() -> None:
        eventually(lambda: _newest(db, before))
        conclude(db, _newest(db, before), pick="student_int8", release={"id": ids.release, "name": release})
        eventually(lambda: _asked(db))
        for row in _asked(db):
            with db.transaction() as session:
                measurement = session.get_one(Measurement, row)
                measurement.state, measurement.answered_at = "DONE", utc_now()
                slow = measurement.variant == "student_int8"
                measurement.metrics = {
                    "p50_us": 900.0 if slow else 100.0,
                    "p99_us": 1e3,
                    "memory_bytes": 1,
                    "load_ms": 1.0,
                }

    worker = threading.Thread(target=meanwhile)
    worker.start()
    command = ("compress", "champion", "--name", "small", "--class", "pi4", "--max-p50", "200us", "--wait", "--json")
    found = fogline(*command).json
    worker.join()
    # The search knows nothing of the limit, which is one of the devices.
    assert found["search"]["spec"]["limits"]["max_p50_us"] is None
    refused = {each["name"]: each["refused"] for each in found["pick"]["variants"]}
    assert refused["student_int8"] == ["900 µs, 200 allowed"]
    assert found["pick"]["taken"] == "student_fp32"
    said = fogline("compress", "champion", "--class", "pi4")
    assert (said.code, "--class needs --name and --wait" in said.err) == (Exit.INVALID, True)


def _newest(db: Database, before: str) -> str | None:
    with db.read() as session:
        newest = session.scalars(select(Search.id).order_by(Search.id.desc())).first()
    return newest if newest != before else None


def _asked(db: Database) -> Sequence[str]:
    with db.read() as session:
        return session.scalars(select(Measurement.id).where(Measurement.state == "ASKED")).all()


def test_quantities_are_read_as_people_write_them():
    for text, wanted in (("40kB", 40_000), ("1.5 MB", 1_500_000), ("64KiB", 65_536), ("17", 17), (None, None)):
        assert bytes_of(text, "--max-bytes") == wanted
    for text, us in (("2ms", 2000.0), ("500us", 500.0), ("500 µs", 500.0), (".1s", 100_000.0)):
        assert microseconds_of(text, "--max-p50") == us
    assert (share_of("0.5", "--max-drop"), share_of("2 %", "--max-drop")) == (0.005, 0.02)
    for read, text in (
        (bytes_of, "40kg"),
        (bytes_of, "k"),
        (microseconds_of, "5"),
        (share_of, "nan"),
        (share_of, "1e3"),
    ):
        with pytest.raises(CliError) as refused:
            read(text, "--limit")
        assert refused.value.code == "unreadable_quantity"
