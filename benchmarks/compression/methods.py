"""Every compression method on trained students: accuracy, worst class, bytes as sent, and time beside the float parent.

Three students, each trained on all devices' data at once, since what is compared is what happens afterwards: the smartwatch's,
scikit-learn's digits' and Fashion-MNIST's (left out, by name, where its files are not there). Methods that train use unlabelled
examples: Fashion-MNIST's own transfer set; for the others, which have none, the devices' data without its labels, as if it had
been given. Accuracy is of people and images that nothing was trained on or chosen by. Times are medians at batch 1 in ONNX
Runtime as on a device, parent and candidate in turns in one process: only their ratio is told.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from harness import Figure, Options, progress
from rich.console import Console
from rich.table import Table

from compression.cost import sent, time_ratio
from fogline_recipes import parameters
from fogline_server.compression.chain import Chain, Link
from fogline_server.compression.evaluate import evaluate
from fogline_server.compression.export import export_module, fused, load_model
from fogline_server.compression.methods.base import Parent, load_method
from fogline_shared import tensors
from fogline_shared.errors import FoglineError, Unavailable
from fogline_shared.recipe import Dataset, FloatArray, Recipe

SEEDS = (0, 1, 2)
SINGLE = (
    "float32",
    "float16",
    "weight_only:bits=8",
    "weight_only:bits=4",
    "int8_static",
    "int8_static:qdq=true",
    "int8_static:calibrator=entropy",
    "int8_static:calibrator=percentile",
    "int8_dynamic",
    "int16_activations",
    "prune_channels",
    "low_rank",
    "sparse_magnitude",
    "sparse_n_m",
    "binarize",
)
CHAINED = (
    "qat,int8_static",
    "low_rank,finetune",
    "sparse_magnitude,int8_static",
    "sparse_n_m,int8_static",
    PRUNED := "prune_channels,finetune",
    "prune_channels,finetune,int8_static",
    "prune_channels,qat,int8_static",
)
QUICK_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A recipe's student. ``epochs`` over all devices' data; ``calibration`` with labels; ``transfer``: unlabelled."""

    recipe: Recipe
    epochs: int
    train: Dataset
    calibration: Dataset
    unseen: Dataset
    transfer: FloatArray


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method on one seed's student. Shares of the unseen examples, bytes after zstd, candidate's time over parent's."""

    accuracy: float
    worst: float
    size: int
    time: float


def measure(options: Options) -> list[Figure]:
    figures: list[Figure] = []
    for name, make in {"smartwatch": _smartwatch, "digits": _digits, "fashion": _fashion}.items():
        try:
            subject = make()
        except Unavailable as error:
            progress(f"left out {name}: {error.message}")
            continue
        rows: dict[str, list[Row]] = {}
        refused: dict[str, str] = {}
        for seed in SEEDS[:1] if options.quick else SEEDS:
            parent = _parent(subject, seed, quick=options.quick)
            for chain in (*SINGLE, *CHAINED):
                progress(f"{name}, seed {seed}: {chain}")
                try:
                    rows.setdefault(chain, []).append(_row(chain, parent, subject, quick=options.quick))
                except FoglineError as error:
                    refused[chain] = error.code
        rows = {chain: found for chain, found in rows.items() if found}
        _show(name, rows, refused)
        figures += _figures(name, rows, refused)
    return figures


def _smartwatch() -> Subject:
    from fogline_recipes.smartwatch import Smartwatch
    from fogline_recipes.smartwatch.data import HOP, windows

    recipe = Smartwatch()
    return _given(recipe, windows(recipe.training_people, hop=HOP), epochs=32)


def _digits() -> Subject:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "recipes"))
    from digits_recipe import Digits

    return _given(Digits(), Digits().device_data({}), epochs=40)


def _fashion() -> Subject:
    from fogline_recipes.fashion import Fashion

    recipe = Fashion()
    parts = [recipe.device_data(options) for options in recipe.fleet()]
    x, y = (np.concatenate(arrays) for arrays in ([part.x for part in parts], [part.y for part in parts]))
    return _given(recipe, Dataset(x=x, y=y), epochs=40)


def _given(recipe: Recipe, train: Dataset, *, epochs: int) -> Subject:
    transfer, calibration, unseen = recipe.transfer(), recipe.holdout() or recipe.root(), recipe.unseen()
    assert calibration is not None
    assert unseen is not None
    return Subject(
        recipe=recipe,
        epochs=epochs,
        train=train,
        calibration=calibration,
        unseen=unseen,
        transfer=train.x if transfer is None else transfer,
    )


def _parent(subject: Subject, seed: int, *, quick: bool) -> Parent:
    recipe, plan = subject.recipe, subject.recipe.plans["student"]
    model = recipe.model("student", seed=seed)
    standardisation = recipe.channel_sums(subject.train).standardisation()
    plan = replace(plan, epochs=1 if quick else subject.epochs, seed=seed)
    recipe.train(model, subject.train, standardisation, plan)
    blob = b"".join(bytes(part) for part in tensors.encode(parameters.read(model)))
    module = fused(load_model(recipe, "student", blob), standardisation, rank=len(recipe.input_shape))
    every = -(-len(subject.calibration) // 512)
    x, y = np.ascontiguousarray(subject.calibration.x[::every]), subject.calibration.y[::every]
    exported = export_module(module, x, input_name=recipe.input_name, output_name="logits", classes=len(recipe.classes))
    return Parent(
        model=exported,
        module=module,
        examples=x,
        calibration=x,
        labels=y,
        transfer=subject.transfer,
        augment=recipe.augment,
        seed=seed,
    )


def _row(text: str, parent: Parent, subject: Subject, *, quick: bool) -> Row:
    chain = Chain.parse(text)
    if quick:
        chain = Chain(links=tuple(_hurried(link) for link in chain.links))
    model = chain.compress(parent)
    found = evaluate(model, subject.unseen)
    return Row(
        accuracy=found.accuracy,
        worst=found.worst_class_accuracy,
        size=sent(model),
        time=time_ratio(model, parent.model, subject.unseen.x[:1], quick=quick),
    )


def _hurried(link: Link) -> Link:
    short = {"steps": QUICK_STEPS} if hasattr(load_method(link.method), "steps") else {}
    return replace(link, options={**link.options, **short})


def _mean(rows: Sequence[Row], field: str) -> tuple[float, float]:
    values = [float(getattr(row, field)) for row in rows]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _show(name: str, rows: Mapping[str, Sequence[Row]], refused: Mapping[str, str]) -> None:
    seeds = len(next(iter(rows.values())))
    table = Table("chain", "accuracy %", "worst class %", "bytes sent", "p50 / float", title=f"{name}, {seeds} seed(s)")
    for chain, found in rows.items():
        accuracy, worst = _mean(found, "accuracy"), _mean(found, "worst")
        table.add_row(
            chain,
            f"{100 * accuracy[0]:.1f} ± {100 * accuracy[1]:.1f}",
            f"{100 * worst[0]:.1f} ± {100 * worst[1]:.1f}",
            f"{_mean(found, 'size')[0]:.0f}",
            f"{_mean(found, 'time')[0]:.2f}",
        )
    for chain, code in refused.items():
        table.add_row(chain, f"refused: {code}", "", "", "")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _figures(name: str, rows: Mapping[str, Sequence[Row]], refused: Mapping[str, str]) -> list[Figure]:
    """The promises; the whole table lies in the detail of the first."""
    table = {
        chain: {field: _mean(found, field) for field in ("accuracy", "worst", "size", "time")}
        for chain, found in rows.items()
    }
    detail = {"table": table, "refused": dict(refused)}
    figures = [
        _drop(f"{name}: int8 loses", rows, "int8_static", 0.3, detail),
        Figure(
            name=f"{name}: int8's bytes",
            unit="B",
            ours=_mean(rows["int8_static"], "size")[0],
            peer=_mean(rows["float32"], "size")[0],
            peer_name="its float parent, both zstd",
            target=1 / 3,
        ),
    ]
    if PRUNED in rows:
        pruned, spread = _mean(rows[PRUNED], "time")
        figures += [
            _drop(f"{name}: pruned and distilled loses", rows, PRUNED, 1.0, {}),
            Figure(
                name=f"{name}: pruned and distilled's time",
                unit="× float",
                ours=pruned,
                spread=spread,
                peer=1.0,
                peer_name="the unpruned student",
                target=0.5,
            ),
        ]
    return figures


def _drop(name: str, rows: Mapping[str, Sequence[Row]], chain: str, limit: float, detail: dict[str, object]) -> Figure:
    """Points of accuracy that a chain costs, seed by seed."""
    drops = [100 * (a.accuracy - b.accuracy) for a, b in zip(rows["float32"], rows[chain], strict=True)]
    return Figure(
        name=name,
        unit="points",
        ours=statistics.mean(drops),
        spread=statistics.stdev(drops) if len(drops) > 1 else 0.0,
        peer=limit,
        peer_name="limit",
        target=1.0,
        detail=detail,
    )
