"""A pipeline as data: TOML, checked as a whole before anything starts. ``docs/streams.md`` shows a file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fogline_client.inference.predictor import Predictor
from fogline_client.sources.base import Source, load_source
from fogline_client.streams.pipeline import Limits, Pipeline
from fogline_client.streams.sinks.base import Sink, load_sink
from fogline_client.streams.stages.base import Stage, load_stage
from fogline_client.streams.windows import Fuser, Sensor, Windows
from fogline_shared.errors import InvalidInput

T = TypeVar("T")

_TABLES = ("windows", "limits")
_LISTS = ("sources", "sensors", "stages", "sinks")


@dataclass(frozen=True, kw_only=True)
class PipelineSpec:
    """Validated. ``sources``: the sensor's name, or "", and the source."""

    sources: Sequence[tuple[str, Source]]
    windows: Windows | None
    sensors: Sequence[Sensor]
    stages: Sequence[Stage]
    sinks: Sequence[Sink]
    limits: Limits

    def build(self, predictor: Predictor) -> Pipeline:
        """A pipeline that has not run; raises as :class:`Pipeline`."""
        return Pipeline(
            predictor,
            sources=self.sources,
            windows=self.windows,
            sensors=self.sensors,
            stages=self.stages,
            sinks=self.sinks,
            limits=self.limits,
        )

    def plan(self) -> str:
        """In words, a line for each part."""
        lines = [f"source  {name or 'as samples say'}: {source}" for name, source in self.sources]
        lines += [f"sensor  {sensor}" for sensor in self.sensors]
        if self.windows is None:
            lines.append("frames  each sample is what the model is asked")
        else:
            seconds, shape = self.windows.length / self.windows.rate_hz, Fuser(self.windows, self.sensors).shape
            every = self.windows.hop / self.windows.rate_hz
            lines.append(f"windows {shape[0]} × {shape[1]}, {seconds:g} s long, one every {every:g} s: {self.windows}")
        lines += [f"stage   {stage}" for stage in self.stages]
        lines += [f"sink    {sink}" for sink in self.sinks]
        lines.append(f"limits  {self.limits}")
        return "\n".join(lines)


def read_spec(path: Path) -> PipelineSpec:
    """From a file; raise InvalidInput ``bad_pipeline_file`` when it is no TOML, and as :func:`parse_spec`."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput("bad_pipeline_file", f"{path} cannot be read: {error}", path=str(path)) from error
    return parse_spec(raw)


def parse_spec(raw: Mapping[str, Any]) -> PipelineSpec:
    """From tables.

    Raises InvalidInput, naming the table: ``invalid_pipeline`` (a field is unknown, missing or out of range),
    ``invalid_source_option``, ``unknown_source``, ``unknown_fusion``, ``unknown_stage``, ``unknown_sink``.
    """
    for name in raw:
        if name not in {*_TABLES, *_LISTS}:
            known = ", ".join(sorted({*_TABLES, *_LISTS}))
            raise InvalidInput("invalid_pipeline", f"no table named {name!r}; known: {known}", field=name)
    spec = PipelineSpec(
        sources=[_source(where, table) for where, table in _tables(raw, "sources")],
        windows=_built(Windows, "windows", _table(raw, "windows")) if "windows" in raw else None,
        sensors=[_built(Sensor, where, table) for where, table in _tables(raw, "sensors")],
        stages=[_plugin(load_stage, where, table) for where, table in _tables(raw, "stages")],
        sinks=[_plugin(load_sink, where, table) for where, table in _tables(raw, "sinks")],
        limits=_built(Limits, "limits", _table(raw, "limits")),
    )
    # What only the parts together can have wrong.
    spec.build(Predictor())
    return spec


def _source(where: str, table: Mapping[str, Any]) -> tuple[str, Source]:
    sensor = table.get("sensor", "")
    if not isinstance(sensor, str):
        raise InvalidInput("invalid_pipeline", f"{where}: sensor is a sensor's name, got {sensor!r}", field="sensor")
    return sensor, _plugin(load_source, where, {name: value for name, value in table.items() if name != "sensor"})


def _plugin(load: Any, where: str, table: Mapping[str, Any]) -> Any:
    options = dict(table)
    kind = options.pop("kind", None)
    if not isinstance(kind, str):
        raise InvalidInput("invalid_pipeline", f"{where} needs kind, a name, got {kind!r}", field="kind")
    with _placed(f"{where} ({kind})"):
        return load(kind, options)


def _built(factory: type[T], where: str, table: Mapping[str, Any]) -> T:
    with _placed(where):
        try:
            return factory(**table)
        except TypeError as error:
            told = str(error).replace(f"{factory.__name__}.__init__() ", "")
            raise InvalidInput("invalid_pipeline", told) from error


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Say in which table it was."""
    try:
        yield
    except InvalidInput as error:
        raise _at(where, error) from error


def _at(where: str, error: InvalidInput) -> InvalidInput:
    error.message = f"{where}: {error.message}"
    return error


def _table(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = raw.get(name, {})
    if not isinstance(table, Mapping):
        raise InvalidInput("invalid_pipeline", f"{name} is a table, [{name}]", field=name)
    return table


def _tables(raw: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    tables = raw.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise InvalidInput("invalid_pipeline", f"{name} is a list of tables, [[{name}]]", field=name)
    for i, table in enumerate(tables, start=1):
        yield f"{name} {i}", table
