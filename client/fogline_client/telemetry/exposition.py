"""What Prometheus reads of the agent (``GET /metrics`` of the local endpoint), whoever asked for the predictions."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator

from fogline_client.inference.predictor import Predictor
from fogline_client.telemetry.recorder import Recorder
from fogline_client.telemetry.spool import Spool
from fogline_shared.sketch import Sketch

_QUANTILES = (0.5, 0.9, 0.99)


class Exposition:
    """Any thread may ask."""

    def __init__(self, recorder: Recorder, spool: Spool, predictor: Predictor) -> None:
        self._recorder = recorder
        self._spool = spool
        self._predictor = predictor

    def text(self) -> str:
        """The exposition format, version 0.0.4."""
        return "\n".join([*self._predicted(), *self._active(), *self._spooled(), ""])

    def _predicted(self) -> Iterator[str]:
        seen = self._recorder.overview()
        yield from _sample("predictions_total", "counter", seen.predictions)
        yield from _sample("errors_total", "counter", seen.errors)
        yield from _summary("latency_seconds", seen.latency_us, lately=seen.lately.latency_us, unit=1e-6, most=math.inf)
        yield from _summary("confidence", seen.confidence_pct, lately=seen.lately.confidence_pct, unit=1e-2, most=1.0)

    def _active(self) -> Iterator[str]:
        model = self._predictor.model
        if model is None:
            return
        labels = {"digest": model.digest, "recipe": model.manifest.recipe, "variant": model.manifest.variant}
        yield "# TYPE fogline_agent_active_info gauge"
        described = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
        yield f"fogline_agent_active_info{{{described}}} 1"
        drift = self._recorder.drift(model.digest)
        if drift.inputs:
            yield "# TYPE fogline_agent_drift_psi gauge"
            for feature, psi in drift.psi.items():
                yield f'fogline_agent_drift_psi{{feature="{feature}"}} {psi}'
            yield from _sample("drift_inputs", "gauge", drift.inputs)

    def _spooled(self) -> Iterator[str]:
        yield from _sample("spool_dropped_total", "counter", self._spool.dropped)
        try:
            yield from _sample("spool_waiting", "gauge", self._spool.waiting())
        except sqlite3.DatabaseError:  # a disk that fails: the other figures are worth the more
            return


def _sample(name: str, kind: str, value: float) -> tuple[str, str]:
    return f"# TYPE fogline_agent_{name} {kind}", f"fogline_agent_{name} {value}"


def _summary(name: str, total: Sketch, *, lately: Sketch, unit: float, most: float) -> Iterator[str]:
    """Quantiles of what was lately, at most ``most``, sum and count since the start."""
    yield f"# TYPE fogline_agent_{name} summary"
    if lately.count:
        for q in _QUANTILES:
            yield f'fogline_agent_{name}{{quantile="{q}"}} {min(most, lately.quantile(q) * unit):.6g}'
    yield f"fogline_agent_{name}_sum {total.sum * unit:.9g}"
    yield f"fogline_agent_{name}_count {total.count}"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
