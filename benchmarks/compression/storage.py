"""What the cold tier takes of consecutive smartwatch models, whole and cut by tensors, and what a read of the hot tier costs."""

from __future__ import annotations

import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

from harness import Figure, Options, progress

_MB = 4


def measure(options: Options) -> list[Figure]:
    figures = [_hot_read(size, options) for size in (30_000, _MB << 20)]
    for size in ("student", "teacher"):
        first, second = _rounds(size, options)
        head = {**first, **{name: second[name] for name in list(first)[-2:]}}
        for what, later in (("differ in the head", head), ("two rounds", second)):
            for form, make in (("parameters", _parameters), ("artifact", _artifact(size))):
                figures.append(_stored(f"{size}, {form}: {what}", make(first), make(later)))
    return figures


def _rounds(size: str, options: Options) -> list[Mapping[str, object]]:
    """A run's parameters after two consecutive rounds, of the same seed."""
    from fogline_client.training.app import build_app
    from fogline_recipes.smartwatch import Smartwatch
    from fogline_server.training import whole_run
    from fogline_server.training.in_process import InProcessGrid
    from fogline_server.training.spec import RunSpec
    from fogline_shared import flower

    recipe, found = Smartwatch(), []
    people = recipe.training_people[: 2 if options.quick else 4]
    for rounds in (2, 3):
        progress(f"{size}, {rounds} rounds")
        spec = RunSpec(recipe=recipe.name, min_devices=1, size=size, rounds=rounds).resolved(recipe)
        grid = InProcessGrid({node: (build_app(recipe), {"person": str(node)}) for node in people})
        found.append(dict(flower.arrays_of(whole_run.train(grid, recipe, spec).arrays)))
    return found


def _parameters(arrays: Mapping[str, object]) -> bytes:
    from fogline_shared import tensors

    return b"".join(bytes(part) for part in tensors.encode(arrays))


def _artifact(size: str) -> Callable[[Mapping[str, object]], bytes]:
    from fogline_recipes.smartwatch import Smartwatch
    from fogline_server.compression.export import export_onnx
    from fogline_shared.recipe import Standardisation

    recipe = Smartwatch()
    channels = recipe.input_shape[0]
    neutral = Standardisation(mean=[0.0] * channels, scale=[1.0] * channels)
    return lambda arrays: export_onnx(recipe, size, _parameters(arrays), neutral, "student_fp32")


def _stored(name: str, first: bytes, second: bytes) -> Figure:
    """Bytes at rest of both blobs as they are kept, beside both compressed whole."""
    kept, whole, cut = (_at_rest(first, second, limit) for limit in (None, 1 << 60, 0))
    return Figure(
        name=f"two at rest ({name})",
        unit="bytes",
        ours=kept,
        peer=whole,
        peer_name="whole, zstd",
        target=1.0,
        detail={"plain": len(first) + len(second), "cut whatever the size": cut},
    )


def _at_rest(first: bytes, second: bytes, whole_below: int | None) -> int:
    from fogline_server.blobs import pieces
    from fogline_server.blobs.cold import ColdTier
    from fogline_server.blobs.store import BlobStore
    from fogline_server.registry.deltas.tensors import tensors

    limit = pieces.WHOLE if whole_below is None else whole_below
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(pieces, "WHOLE", limit):
        cold = ColdTier(f"memory://{uuid.uuid4().hex}", tensors=tensors)
        store = BlobStore(Path(folder), cold=cold)
        for data in (first, second):
            store.put([data])
        return sum(each.size for each in (*cold.listing().values(), *cold.chunks().values()))


def _hot_read(size: int, options: Options) -> Figure:
    """Bytes a second of a blob by its path, and of a plain file; beside them of a read that is checked."""
    import os

    from fogline_server.blobs.cold import ColdTier
    from fogline_server.blobs.store import BlobStore

    with tempfile.TemporaryDirectory() as folder:
        store = BlobStore(Path(folder) / "hot", cold=ColdTier("memory://hot-read"), hot_bytes=1 << 30)
        digest = store.put([os.urandom(size)]).digest
        plain = Path(folder) / "plain"
        plain.write_bytes(store.read(digest))
        by_path, checked = (lambda: store.path(digest).read_bytes()), (lambda: store.read(digest))
        times: dict[Callable[[], bytes], list[float]] = {by_path: [], plain.read_bytes: []}
        for _ in range(20 if options.quick else 300):
            # In turns, each first as often: whoever else is at work disturbs both alike.
            for read in list(times) + list(times)[::-1]:
                times[read].append(_seconds(read))
        slow = statistics.median(_seconds(checked) for _ in range(20))
        ours, peer = (size / 1e6 / statistics.median(taken) for taken in times.values())
    return Figure(
        name=f"hot-tier read by path, {size:,} bytes",
        unit="MB/s",
        ours=ours,
        peer=peer,
        peer_name="a plain file",
        target=0.8,
        higher_is_better=True,
        detail={"read that compares the digest, MB/s": round(size / 1e6 / slow)},
    )


def _seconds(work: Callable[[], bytes]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
