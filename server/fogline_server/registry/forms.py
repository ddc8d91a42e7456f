"""One compressed form of a release's student: a chain's file with its manifest. Builds and searches make them alike."""

from __future__ import annotations

import structlog

from fogline_server.compression.chain import Chain
from fogline_server.compression.export import OUTPUT_NAME
from fogline_server.compression.methods.base import Parent
from fogline_server.compression.stamp import stamp
from fogline_shared.errors import Corrupt, FoglineError
from fogline_shared.recipe import Recipe

log = structlog.get_logger()


def form_of(chain: Chain, parent: Parent, recipe: Recipe, name: str) -> bytes:
    """The artifact of a variant of that name; the same arguments give the same bytes.

    Raises what the chain and the stamp raise; Corrupt ``chain_crashed`` for whatever else a chain stumbled over.
    """
    model = _compressed(chain, parent)
    return stamp(
        model,
        recipe=recipe,
        variant=name,
        output_name=OUTPUT_NAME,
        examples=parent.examples,
        calibration=parent.calibration,
    )


def _compressed(chain: Chain, parent: Parent) -> bytes:
    """Methods run a recipe's own code and large libraries: whatever they stumble over is that chain's failure."""
    try:
        return chain.compress(parent)
    except (FoglineError, OSError, MemoryError):
        raise
    except Exception as error:
        log.exception("chain_crashed", chain=str(chain))
        raise Corrupt("chain_crashed", f"{type(error).__name__}: {error}"[:400]) from error
