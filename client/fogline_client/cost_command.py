"""``fogline-agent cost``."""

from __future__ import annotations

from typing import Annotated

import typer

from fogline_client.terminal import DEFAULT_STATE, JsonOption, StateOption, failures, say


def cost(
    state_dir: StateOption = DEFAULT_STATE,
    *,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="how long to predict, and to rest before")] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """What 1,000 predictions of the active model cost here: processor seconds, and joules where the machine tells them."""
    with failures(as_json=as_json):
        import numpy as np

        from fogline_client import config as settings
        from fogline_client.config import StateDir
        from fogline_client.energy import measure
        from fogline_client.inference.engines.base import DEFAULT_ENGINE, load_engine
        from fogline_client.inference.predictor import Predictor
        from fogline_client.limits import Limits
        from fogline_shared.errors import Unavailable

        config = settings.load(StateDir(root=state_dir).config)
        engine = load_engine(config.engine or DEFAULT_ENGINE, config.engine_options)
        with Predictor.open(state_dir, engine=engine) as predictor:
            model = predictor.model
            if model is None:
                raise Unavailable("no_model", "no model is active on this device yet")
            example = np.zeros(model.manifest.input_shape, dtype=np.float32)
            spent = measure(lambda: model.predict(example), seconds=seconds)
        limits = Limits()
        facts = {
            "digest": model.digest,
            "cpu_s_per_1000": round(spent.cpu_s, 6),
            "joules_per_1000": None if spent.joules is None else round(spent.joules, 6),
            "energy_source": spent.source,
            "cpus": limits.cpus(),
            "memory_mb": limits.memory_bytes() // 2**20,
        }
        energy = "joules cannot be read here: compare by CPU seconds"
        if spent.joules is not None:
            energy = f"{spent.joules:.3f} J by {spent.source}, what the idle machine takes not counted"
        text = f"1,000 predictions cost {spent.cpu_s:.4f} CPU seconds; {energy}"
        say(facts, f"{text}\n{facts['cpus']} CPUs and {facts['memory_mb']} MB may be used", as_json=as_json)
