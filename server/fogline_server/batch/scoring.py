"""Examples → labels and scores, with one engine session per artifact and process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fogline_server.blobs.store import BlobStore
from fogline_server.compression.engine import manifest_of, open_session
from fogline_shared.errors import Corrupt
from fogline_shared.manifest import Manifest

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A loaded artifact."""

    session: Any
    manifest: Manifest

    def score(self, x: FloatArray, batch_size: int) -> tuple[Any, Any]:
        """Arrow arrays of (class name, softmax probability) for examples (n, *shape); null where logits are not finite."""
        name, output = self.manifest.input_name, [self.manifest.output_name]
        parts = [
            self.session.run(output, {name: x[start : start + batch_size]})[0] for start in range(0, len(x), batch_size)
        ]
        logits = np.concatenate(parts)
        bad = ~np.isfinite(logits).all(axis=1)
        best = logits.argmax(axis=1)
        with np.errstate(invalid="ignore", over="ignore"):
            score = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
        labels = pa.array(self.manifest.classes, pa.string()).take(pa.array(best, mask=bad))
        return labels, pa.array(score.astype(np.float32), mask=bad)


@lru_cache(maxsize=2)
def scorer_of(blobs: BlobStore, digest: str) -> Scorer:
    """Load once a process; raises Corrupt ``blob_damaged``, ``model_does_not_load``, ``bad_manifest``."""
    session = open_session(blobs.read(digest))
    manifest = manifest_of(session)
    if manifest is None:
        raise Corrupt("bad_manifest", f"artifact {digest} has no manifest")
    return Scorer(session=session, manifest=manifest)
