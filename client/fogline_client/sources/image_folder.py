"""Frames from a folder of images, in the order of their names: a camera's that writes files, or a recording of one."""

from __future__ import annotations

import importlib.util
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fogline_client.sources import _options as options
from fogline_client.sources.base import Sample
from fogline_shared.errors import InvalidInput, Unavailable

_ENDINGS = {".png", ".ppm", ".pgm", ".jpg", ".jpeg", ".bmp"}
_LOOK_S = 0.2


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Values 0 to 255, times ``scale``; (channels, height, width), or (height, width, channels) if ``channels_last``.

    ``width`` and ``height`` resize (0: as they are), ``grey`` makes one channel of three. ``rate_hz``: images a second, 0 for
    no pause. ``follow``: wait for more images, until stopped; write them under another name and rename them.

    Needs Pillow (the extra ``images``). Flaw: ``not_an_image``. Raises InvalidInput ``invalid_source_option`` and
    ``source_not_readable``, Unavailable ``extra_missing``.
    """

    path: str | Path
    rate_hz: float = 0.0
    width: int = 0
    height: int = 0
    grey: bool = False
    channels_last: bool = False
    scale: float = 1.0
    follow: bool = False
    flaws: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        options.text(self, "path")
        options.number(self, "rate_hz", low=0, high=1e6)
        options.number(self, "scale", low=-1e6, high=1e6)
        for name in ("width", "height"):
            options.number(self, name, low=0, high=65_535, whole=True)
        for name in ("grey", "channels_last", "follow"):
            options.flag(self, name)
        if bool(self.width) != bool(self.height):
            raise InvalidInput("invalid_source_option", "width and height are given together", field="width")
        if importlib.util.find_spec("PIL") is None:
            raise Unavailable("extra_missing", "images need Pillow: install fogline[images]", extra="images")

    def samples(self, stop: threading.Event | None = None) -> Iterator[Sample]:
        """An example for each image that can be read."""
        wait, last = stop or threading.Event(), ""
        while True:
            for path in self._after(last):
                last = path.name
                if (x := self._read(path)) is not None:
                    yield Sample(x=x)
            if not self.follow or wait.wait(_LOOK_S):
                return

    def _after(self, last: str) -> list[Path]:
        try:
            found = [path for path in Path(self.path).iterdir() if path.suffix.lower() in _ENDINGS and path.name > last]
        except OSError as error:
            raise InvalidInput(
                "source_not_readable", f"{self.path} cannot be read: {error}", path=str(self.path)
            ) from error
        return sorted(found, key=lambda path: path.name)

    def _read(self, path: Path) -> NDArray[np.float32] | None:
        from PIL import Image

        try:
            with Image.open(path) as image:
                turned = image.convert("L" if self.grey else "RGB")
                if self.width:
                    turned = turned.resize((self.width, self.height), Image.Resampling.BILINEAR)
                pixels = np.asarray(turned, dtype=np.float32)
        except Exception:  # a foreign file: decoders raise what they like
            self.flaws["not_an_image"] += 1
            return None
        pixels = pixels.reshape(*pixels.shape[:2], -1) * np.float32(self.scale)
        return pixels if self.channels_last else np.ascontiguousarray(pixels.transpose(2, 0, 1))


SOURCE = ImageFolder
