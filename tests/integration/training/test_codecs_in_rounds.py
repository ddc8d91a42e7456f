"""Runs whose devices encode their updates: they learn, send fewer bytes, and a reply that is not what it claims is a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context
from simulation import simulate
from tiny_recipe import Tiny
from training_fleet import Agents, add_devices, create_run, device_id, engine

from fogline_client.training import encoding
from fogline_client.training.app import build_app
from fogline_recipes import parameters
from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.training import rounds, service
from fogline_server.training.in_process import InProcessGrid
from fogline_server.training.spec import RunSpec
from fogline_shared import flower
from fogline_shared.codecs import base as codecs
from fogline_shared.flower import ConfigRecord, RecordDict
from fogline_shared.states import UpdateVerdict

NODES = range(1, 6)
EVERY = pytest.mark.parametrize("name", codecs.names())
ENCODING = pytest.mark.parametrize("name", [name for name in codecs.names() if name != codecs.NONE])
# Arrays of the student that are running statistics.
RUNNING = ("1.running_mean", "1.running_var")
Spoil = Callable[[RecordDict], None]


class Bench:
    """A run without a database. ``spoil``: what node 5 does to its encoded replies."""

    def __init__(self, codec: str, *, spoil: Spoil | None = None, strategy: str = "fedavg", **options: object) -> None:
        self.recipe = Tiny()
        spec = RunSpec(recipe="tiny", rounds=12, codec=codec, codec_options=options, strategy=strategy)
        self.spec = spec.resolved(self.recipe)
        self.strategy = self.spec.rule().build(self.recipe)
        apps = {node: build_app(self.recipe) for node in NODES}
        nodes = {node: (apps[node], {"seed": str(node)}) for node in NODES}
        if spoil is not None:
            nodes[5] = (spoiled(apps[5], spoil), {"seed": "5"})
        self.grid = InProcessGrid(nodes)
        self.model = self.recipe.model("student", seed=0)
        self.arrays = flower.to_record(parameters.read(self.model))
        self.statistics, _ = rounds.gather_statistics(self.grid, self.recipe)

    def round(self, number: int) -> rounds.Trained:
        trained = rounds.train(
            self.grid,
            self.strategy,
            self.arrays,
            number,
            size="student",
            plan=self.spec.train_plan(self.recipe, number),
            statistics=self.statistics,
            max_norm_ratio=self.spec.max_norm_ratio,
            running=RUNNING,
            codec=self.spec.update_codec(),
        )
        self.arrays = trained.arrays
        return trained

    def accuracy(self) -> float:
        parameters.write(self.model, flower.arrays_of(self.arrays))
        return self.recipe.evaluate(self.model, self.recipe.unseen(), self.statistics.standardisation).accuracy


def spoiled(app: Callable, spoil: Spoil) -> Callable:
    def answer(message, context):
        reply = app(message, context)
        if "encoding" in reply.content:
            spoil(reply.content)
        return reply

    return answer


def packed_name(content: RecordDict) -> str:
    return next(name for name, array in content["arrays"].items() if array.dtype == "uint8")


def test_running_statistics_are_what_the_tests_take_them_for() -> None:
    buffers = {name for name, buffer in Tiny().model("student", seed=0).named_buffers() if buffer.is_floating_point()}
    assert buffers == set(RUNNING)


@EVERY
def test_run_learns_with_every_codec(name: str) -> None:
    bench = Bench(name, **({"fraction": 0.1} if name == "topk" else {}))
    for number in range(1, 13):
        assert all(j.verdict == UpdateVerdict.ACCEPTED for j in bench.round(number).judgements)
    assert bench.accuracy() > 0.6, "chance is a quarter"


@pytest.mark.parametrize("strategy", ["fedadam", "fedmedian", "krum", "centred_clipping"])
def test_strategies_read_encoded_replies_as_plain_ones(strategy: str) -> None:
    """fp16 of an update is so near that every rule comes to nearly the same parameters."""
    plain, half = Bench("none", strategy=strategy), Bench("fp16", strategy=strategy)
    for bench in (plain, half):
        bench.round(1)
    arrays = flower.arrays_of(half.arrays)
    for name, array in flower.arrays_of(plain.arrays).items():
        np.testing.assert_allclose(arrays[name], array, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "at_most"), [("none", 1.0), ("fp16", 0.9), ("int8", 0.8), ("topk", 0.8), ("eden", 0.8)]
)
def test_bytes_are_counted_as_sent_and_as_they_would_be_plain(name: str, at_most: float) -> None:
    """The student is tiny, so that the names of its arrays are most of what is sent."""
    trained = Bench(name).round(1)
    assert trained.bytes_plain > 0
    assert trained.bytes_sent <= at_most * trained.bytes_plain
    assert (trained.bytes_sent == trained.bytes_plain) == (name == "none")


@ENCODING
def test_running_statistics_travel_plain(name: str) -> None:
    seen: list[dict[str, str]] = []
    bench = Bench(name, spoil=lambda content: seen.append({k: v.dtype for k, v in content["arrays"].items()}))
    bench.round(1)
    (dtypes,) = seen
    assert {name for name in RUNNING if dtypes[name] == "float32"} == set(RUNNING)
    assert "uint8" in dtypes.values()


@ENCODING
def test_task_that_comes_again_adds_its_residual_once(name: str) -> None:
    app, bench = build_app(Tiny()), Bench(name)
    context = Context(1, 1, {"seed": "1"}, RecordDict(), {})

    def reply(number: int) -> dict[str, np.ndarray]:
        config = bench.statistics.standardisation.as_json() | {"size": "student", "epochs": 1, "learning_rate": 0.01}
        codec = bench.spec.update_codec()
        content = RecordDict(
            {
                "arrays": bench.arrays,
                "config": ConfigRecord(
                    {**config, "seed": number, "round": number, "codec": codec.name, "codec_options": "{}"}
                ),
            }
        )
        address = flower.Address(message_id="m", node_id=1, group_id="", message_type="train")
        return flower.arrays_of(app(flower.instruction(content, address), context).content["arrays"])

    first, second = reply(1), reply(2)
    again = reply(2)
    assert all(np.array_equal(second[key], again[key]) for key in second)
    third = reply(3)
    assert any(not np.array_equal(second[key], third[key]) for key in second)
    assert sorted(context.state) == ["residual-2", "residual-3"]
    # Without a residual the same round gives other bytes: what is compared above can differ.
    del context.state["residual-2"]
    assert any(not np.array_equal(third[key], value) for key, value in reply(3).items())
    assert first.keys() == second.keys()


def replaced(name: str, array: np.ndarray) -> Spoil:
    def spoil(content: RecordDict) -> None:
        arrays = dict(flower.arrays_of(content["arrays"]))
        arrays[name or packed_name(content)] = array
        content["arrays"] = flower.to_record(arrays)

    return spoil


def truncated(content: RecordDict) -> None:
    name = packed_name(content)
    replaced(name, flower.arrays_of(content["arrays"])[name][:-1])(content)


def rubbish(content: RecordDict) -> None:
    name = packed_name(content)
    replaced(name, np.full_like(flower.arrays_of(content["arrays"])[name], 255))(content)


def missing(content: RecordDict) -> None:
    arrays = dict(flower.arrays_of(content["arrays"]))
    arrays.pop(packed_name(content))
    content["arrays"] = flower.to_record(arrays)


def renamed(content: RecordDict) -> None:
    content["encoding"] = ConfigRecord({"codec": "gzip"})


def no_name(content: RecordDict) -> None:
    content["encoding"] = ConfigRecord({})


def unsaid(content: RecordDict) -> None:
    del content["encoding"]


@ENCODING
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (truncated, "bad_encoding"),
        (rubbish, "bad_encoding"),
        (replaced("", np.zeros((2, 2), np.uint8)), "bad_encoding"),
        (replaced("", np.zeros(3, np.float32)), "wrong_shape"),
        (replaced(RUNNING[0], np.zeros(8, np.uint8)), "wrong_dtype"),
        (replaced("foreign", np.zeros(8, np.uint8)), "wrong_keys"),
        (missing, "wrong_keys"),
        (renamed, "wrong_codec"),
        (no_name, "wrong_codec"),
        (unsaid, "wrong_shape"),
    ],
)
def test_reply_that_is_not_what_it_claims_is_refused_and_the_round_goes_on(name: str, spoil: Spoil, code: str) -> None:
    judged = {j.node_id: (j.verdict, j.code) for j in Bench(name, spoil=spoil).round(1).judgements}
    assert judged.pop(5) == (UpdateVerdict.REFUSED, code)
    assert set(judged.values()) == {(UpdateVerdict.ACCEPTED, "")}


def test_reply_encoded_unasked_is_refused() -> None:
    bench = Bench("none")
    app = build_app(Tiny())

    def eager(message, context):
        reply = app(message, context)
        reply.content["encoding"] = ConfigRecord({"codec": "fp16"})
        return reply

    bench.grid = InProcessGrid({n: (eager if n == 5 else build_app(Tiny()), {"seed": str(n)}) for n in NODES})
    judged = {j.node_id: j.code for j in bench.round(1).judgements}
    assert judged == {1: "", 2: "", 3: "", 4: "", 5: "wrong_codec"}


def test_device_that_does_not_know_the_codec_sends_plain_and_counts() -> None:
    bench = Bench("int8")
    app = build_app(Tiny())

    def old(message, context):
        about = message.metadata
        address = flower.Address(
            message_id=about.message_id, node_id=5, group_id=about.group_id, message_type=about.message_type
        )
        content = RecordDict(dict(message.content))
        content["config"] = ConfigRecord(dict(content["config"]) | {"codec": "of_tomorrow"})
        reply = app(flower.instruction(content, address), context)
        assert "encoding" not in reply.content
        return reply

    bench.grid = InProcessGrid({n: (old if n == 5 else build_app(Tiny()), {"seed": str(n)}) for n in NODES})
    assert all(j.verdict == UpdateVerdict.ACCEPTED for j in bench.round(1).judgements)


@pytest.mark.parametrize("config", [{}, {"codec": "gzip", "codec_options": "{}"}, {"codec": "topk"}])
def test_what_a_device_cannot_do_it_does_not_do(config: dict[str, str]) -> None:
    assert encoding.asked(config) is None
    assert encoding.asked({"codec": "topk", "codec_options": "not JSON"}) is None
    assert encoding.asked({"codec": "topk", "codec_options": '{"fraction": 7}'}) is None
    asked = encoding.asked({"codec": "topk", "codec_options": '{"fraction": 0.2}'})
    assert asked is not None
    assert asked.options_json() == {"fraction": 0.2}


@ENCODING
def test_run_over_rows_ends_with_the_bytes_of_a_simulation(
    name: str, database: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    fields = {"rounds": 3, "min_devices": 3, "codec": name}
    add_devices(database, 3)
    run_id, job_id = create_run(database, **fields)
    with Agents(database, blobs, doorbell, 3):
        engine(database, blobs, doorbell).execute(job_id)
    with database.read() as session:
        run, passes = service.get_run(session, run_id), service.rounds_of(session, run_id)
        updates = service.updates_of(session, run_id, round_number=1)
    assert (run.state, run.error) == ("SUCCEEDED", None)
    assert run.params_digest == simulate(3, **fields)
    assert run.params_digest != simulate(3, **{**fields, "codec": "none"})
    assert "bytes_sent" not in passes[0].metrics
    for each in passes[1:]:
        assert 0 < each.metrics["bytes_sent"] < each.metrics["bytes_plain"]
    assert passes[1].metrics["bytes_sent"] == sum(update.size for update in updates)


def test_malformed_encoding_is_a_row_with_its_code(
    database: Database, blobs: BlobStore, doorbell: Doorbell, tmp_path: Path
) -> None:
    def cut(metrics, arrays):
        return metrics, {k: v[:-1] if v.dtype == np.uint8 else v for k, v in arrays.items()}

    add_devices(database, 3)
    run_id, job_id = create_run(database, rounds=2, min_devices=3, quorum=0.6, codec="int8")
    with Agents(database, blobs, doorbell, 3, tamper={1: cut}):
        engine(database, blobs, doorbell).execute(job_id)
    with database.read() as session:
        run = service.get_run(session, run_id)
        verdicts = {u.device_id: (u.verdict, u.code) for u in service.updates_of(session, run_id, round_number=2)}
    assert (run.state, run.rounds_done) == ("SUCCEEDED", 2)
    assert verdicts == {
        device_id(0): ("ACCEPTED", ""),
        device_id(1): ("REFUSED", "bad_encoding"),
        device_id(2): ("ACCEPTED", ""),
    }
