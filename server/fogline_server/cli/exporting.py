"""A variant's ONNX file written here: checked, whole or not at all, and in nobody's place unasked."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fogline_server.cli.api import Api
from fogline_shared.errors import Conflict, FoglineError


def export(
    connection: Api, release: str, variant: str | None, output: Path | None, *, plain: bool, force: bool
) -> tuple[Path, int]:
    """Where the file lies and its bytes; by default ``RELEASE-VARIANT.onnx`` of the default variant, in this folder.

    ``plain``: without Fogline's metadata. Raises Conflict ``file_exists`` unless ``force``; Corrupt ``digest_mismatch`` when
    what comes is not what was sealed, ``not_onnx``; FoglineError ``cannot_write``.
    """
    about = connection.get(f"/v1/releases/{release}")
    name = variant or about["default_variant"]
    place = f"/v1/releases/{about['id']}/variants/{name}"
    digest = connection.get(place)["digest"]
    target = output or Path(f"{about['name']}-{name}.onnx")
    if target.exists() and not force:
        raise _taken(target)
    try:
        with tempfile.TemporaryDirectory(prefix=".fogline-", dir=target.parent) as folder:
            draft = Path(folder) / "artifact.onnx"
            connection.download(f"{place}/artifact", draft, digest=digest)
            if plain:
                _strip(draft)
            _flush(draft)
            if force:
                draft.replace(target)
            else:
                os.link(draft, target)  # which, other than a rename, takes nobody's place
            return target, target.stat().st_size
    except FileExistsError as error:
        raise _taken(target) from error
    except OSError as error:
        raise FoglineError("cannot_write", f"{target}: {error.strerror}") from error


def _strip(file: Path) -> None:
    from fogline_server.compression.stamp import without_manifest

    file.write_bytes(without_manifest(file.read_bytes()))


def _flush(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())


def _taken(target: Path) -> Conflict:
    return Conflict("file_exists", f"{target} is there already: give another --output, or --force to replace it")
