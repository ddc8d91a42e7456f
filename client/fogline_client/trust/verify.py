"""One check of one artifact with python-tuf, hardened where it accepts what it should not. Runs in the child.

python-tuf refuses forged, mixed, frozen and endless metadata. Added here: the floor (see ``floor``), and cache files that
survive a power cut: python-tuf works in a staging folder, whose files are flushed and renamed into the cache once all of
them, and the floor, are satisfied. Each cached file is verified again when it is next read, so any mixture of old and new
that a power cut leaves is safe.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api import exceptions as tuf
from tuf.api.metadata import Metadata, Root, Signed, TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from fogline_client import durable
from fogline_client.trust import floor as floors
from fogline_client.trust.floor import Floor, Seen
from fogline_client.trust.layout import TrustDir, Wanted
from fogline_shared.errors import Corrupt, FoglineError, Unavailable

RELEASE = "release"
# Each is named by the one after it, and a bin of ``release`` by all; written in this order.
_ROLES = (RELEASE, "targets", "snapshot", "timestamp")
_BASE = "metadata/"
# After targets come ``release`` and one bin of it, if it has any; python-tuf would follow more.
_CONFIG = UpdaterConfig(max_delegations=2)

Fetch = Callable[[str], bytes | None]
"""Metadata by name (``timestamp.json``, ``2.root.json``); None: there is none. Raises FoglineError."""


def verify(trust: TrustDir, wanted: Wanted, fetch: Fetch, *, now: datetime) -> Floor:
    """Refresh the metadata and find the artifact in it; return the floor as it is now.

    Raises Unavailable ``trust_expired``, ``trust_incomplete``; Corrupt ``trust_rolled_back``, ``trust_signature_invalid``,
    ``trust_mismatch``, ``trust_too_long``, ``trust_damaged``, ``bad_trust_root``, ``bad_trust_floor``,
    ``target_not_listed``, ``target_mismatch``; and what ``fetch`` raises.
    """
    floor = floors.load(trust.floor)
    shutil.rmtree(trust.stage, ignore_errors=True)
    if trust.cache.exists():
        shutil.copytree(trust.cache, trust.stage)
    else:
        trust.stage.mkdir(parents=True)
    try:
        try:
            found = _refresh(trust, wanted, fetch)
        finally:
            # A root that its predecessor signed is one, whatever else is wrong: the keys it revokes stay revoked.
            floor = _keep_roots(trust, floor)
        signed = _read(trust.stage, wanted)
        _judge(signed, floor, now=floor.reference(now))
        floor = _raised(floor, signed, time=floor.reference(now).timestamp())
        floors.save(floor, trust.floor)
        for role in (*(signed.keys() - {"root", *_ROLES}), *_ROLES):
            _keep(trust.stage / f"{role}.json", trust.cache / f"{role}.json")
    finally:
        shutil.rmtree(trust.stage, ignore_errors=True)
    _match(found, wanted)
    return floor


class _Fetcher(FetcherInterface):
    def __init__(self, fetch: Fetch) -> None:
        self._fetch_one = fetch

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self._fetch_one(url.removeprefix(_BASE))
        if data is None:
            raise tuf.DownloadHTTPError(f"no {url}", 404)
        return iter([data])


def _refresh(trust: TrustDir, wanted: Wanted, fetch: Fetch) -> TargetFile | None:
    pinned = trust.pinned.read_bytes()
    try:
        updater = Updater(str(trust.stage), _BASE, fetcher=_Fetcher(fetch), config=_CONFIG, bootstrap=pinned)
    except tuf.RepositoryError as error:
        raise Corrupt("bad_trust_root", f"the pinned root cannot be used: {error}") from error
    with _translated():
        updater.refresh()
        return updater.get_targetinfo(wanted.path)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except tuf.ExpiredMetadataError as error:
        raise Unavailable("trust_expired", f"no metadata that is still valid was offered: {error}") from error
    except tuf.BadVersionNumberError as error:
        raise Corrupt("trust_rolled_back", f"older metadata was offered than was seen: {error}") from error
    except tuf.UnsignedMetadataError as error:
        raise Corrupt("trust_signature_invalid", f"metadata lacks valid signatures: {error}") from error
    except tuf.LengthOrHashMismatchError as error:
        raise Corrupt("trust_mismatch", f"metadata does not belong together: {error}") from error
    except tuf.RepositoryError as error:
        raise Corrupt("trust_damaged", f"metadata cannot be used: {error}") from error
    except tuf.DownloadLengthMismatchError as error:
        raise Corrupt("trust_too_long", f"more metadata came than there may be: {error}") from error
    except tuf.DownloadHTTPError as error:
        raise Unavailable("trust_incomplete", f"metadata is named that is not there: {error}") from error
    except tuf.DownloadError as error:
        if isinstance(error.__cause__, FoglineError):
            raise error.__cause__ from error
        raise Unavailable("trust_incomplete", f"metadata did not arrive: {error}") from error


def _keep_roots(trust: TrustDir, floor: Floor) -> Floor:
    staged = sorted((trust.stage / "root_history").glob("*.root.json"), key=_version_of)
    if not staged or _version_of(staged[-1]) < floor.root:
        return floor
    for path in staged:
        _keep(path, trust.cache / "root_history" / path.name)
    if _version_of(staged[-1]) == floor.root:
        return floor
    floor = replace(floor, root=_version_of(staged[-1]))
    floors.save(floor, trust.floor)
    return floor


def _version_of(path: Path) -> int:
    return int(path.name.split(".")[0])


def _keep(staged: Path, cached: Path) -> None:
    """Move a file into the cache durably, if it is not there already."""
    if not staged.exists():
        return
    data = staged.read_bytes()
    if not cached.exists() or cached.read_bytes() != data:
        durable.make_folder(cached.parent)
        durable.write(cached, data)


def _read(stage: Path, wanted: Wanted) -> Mapping[str, Signed]:
    """What python-tuf has verified just now; of what lists artifacts all but these, which may be many.

    Raises Corrupt ``trust_damaged`` for a ``release`` that is neither a list nor cut into bins.
    """
    found = {role: stage / f"{role}.json" for role in ("root", *_ROLES[1:])}
    signed = {role: Metadata[Any].from_bytes(path.read_bytes()).signed for role, path in found.items()}
    if (path := stage / f"{RELEASE}.json").exists():
        raw = json.loads(path.read_bytes())["signed"]
        signed[RELEASE] = release = _without_artifacts(raw)
        if release.delegations is not None:
            cut = release.delegations.succinct_roles
            if cut is None or cut.name_prefix != RELEASE or raw["targets"]:
                raise Corrupt("trust_damaged", f"{RELEASE} must list artifacts or have bins, and nothing else")
            name = cut.get_role_for_target(wanted.path)
            signed[name] = _without_artifacts(json.loads((stage / f"{name}.json").read_bytes())["signed"])
    return signed


def _without_artifacts(raw: Mapping[str, Any]) -> Targets:
    return Targets.from_dict({**raw, "targets": {}})


def _judge(signed: Mapping[str, Signed], floor: Floor, *, now: datetime) -> None:
    floor.check_root(signed["root"].version)
    for role, each in signed.items():
        if each.is_expired(now):
            text = f"{role} {each.version} ended {each.expires:%Y-%m-%d %H:%M} UTC, and it was later already"
            raise Unavailable("trust_expired", text)
    for role in signed:
        if role != "root":
            floor.check(role, _seen(signed, role))


def _seen(signed: Mapping[str, Signed], role: str) -> Seen:
    delegator = signed["targets" if role == RELEASE else "root" if role in _ROLES else RELEASE]
    assert isinstance(delegator, Root | Targets)
    return Seen(version=signed[role].version, keyids=tuple(delegator.get_delegated_role(role).keyids))


def _raised(floor: Floor, signed: Mapping[str, Signed], *, time: float) -> Floor:
    seen = {role: _seen(signed, role) for role in signed if role != "root"}
    return Floor(time=time, root=signed["root"].version, roles={**floor.roles, **seen})


def _match(found: TargetFile | None, wanted: Wanted) -> None:
    if found is None:
        raise Corrupt("target_not_listed", f"{wanted.path} is not among the artifacts that are signed")
    if (found.length, found.hashes.get("sha256")) != (wanted.size, wanted.digest):
        raise Corrupt("target_mismatch", f"{wanted.path} is signed with another digest or length than is desired")
