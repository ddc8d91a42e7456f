"""The training child: ``python -m fogline_client.training.child``. It exists only while the device trains.

It carries torch and flwr so that the agent need not. Lines come by stdin and go by what was stdout (see
:mod:`fogline_client.training.exchange`); anything a recipe prints goes to stderr. It ends when its agent does.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil

from fogline_client.training import exchange
from fogline_client.training.exchange import Done, Order, Start
from fogline_shared import tensors
from fogline_shared.errors import FoglineError, Unavailable
from fogline_shared.longevity import settle

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.clientapp import ClientApp

# Inference on this device comes first.
_NICENESS = 10
# A few models of ordinary size, for as long as the child lives.
_KEEP_BYTES = 64 << 20


def _read(source: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    for line in source:
        lines.put(line)
    # The agent has gone: whatever trains here trains for nobody.
    os._exit(0)


def _step_back() -> None:
    """Let everything else on this device have processor and disk first."""
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with contextlib.suppress(OSError, AttributeError, ValueError):  # AttributeError: not on Linux
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)


def main() -> None:
    """Answer orders until the agent closes the pipe."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _step_back()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, lines), daemon=True).start()
    start = Start(**exchange.parse(lines.get()))
    worker: _Worker | FoglineError
    try:
        worker = _Worker(start)
    except FoglineError as error:
        worker = error
    except Exception as error:  # torch or the recipe's package may be missing or broken in any way
        worker = Unavailable("training_unavailable", f"this device cannot train: {type(error).__name__}: {error}")
    while True:
        order = Order(**exchange.parse(lines.get()))
        replies.write(exchange.line(_answer(worker, order)))
        # Models end in cycles of references. Nobody waits now, and the next task wants their memory.
        gc.collect()


def _answer(worker: _Worker | FoglineError, order: Order) -> Done:
    if isinstance(worker, FoglineError):
        return _failed(order, worker)
    try:
        return worker.work(order)
    except FoglineError as error:
        return _failed(order, error)
    except Exception as error:  # a recipe is somebody else's code, and its author needs to know where it failed
        traceback.print_exc()
        return _failed(order, FoglineError("training_failed", f"{type(error).__name__}: {error}"[:2000]))


def _failed(order: Order, error: FoglineError) -> Done:
    return Done(task_id=order.task_id, error_code=error.code, error_message=error.message)


class _Worker:
    """The recipe's app, warm between rounds."""

    def __init__(self, start: Start) -> None:
        import torch

        from fogline_client.training.app import build_app
        from fogline_client.training.local_privacy import Budget, Ledger
        from fogline_client.training.memory import Memory
        from fogline_shared.recipe import load_recipe

        torch.set_num_threads(1)
        budget = Budget(epsilon=start.local_epsilon, delta=start.local_delta)
        self._app: ClientApp = build_app(load_recipe(start.recipe), Ledger(Path(start.ledger), budget))
        settle(keep_bytes=_KEEP_BYTES)
        self._options = dict(start.options)
        self._memory = Memory(Path(start.memory))
        self._contexts: dict[str, Context] = {}

    def work(self, order: Order) -> Done:
        from fogline_shared import flower
        from fogline_shared.flower import RecordDict

        address = flower.Address(
            message_id=order.task_id,
            node_id=order.node_id,
            group_id=order.group_id,
            message_type=order.message_type,
        )
        content = flower.decode(
            exchange.parse(order.records_json.encode()), {name: Path(path) for name, path in order.blobs.items()}
        )
        context = self._context(order)
        known = RecordDict(dict(context.state))
        answer = self._app(flower.instruction(content, address), context)
        # Before the answer is there: a task whose answer is lost comes again, and finds what it found the first time.
        self._memory.keep(order.run_id, context.state, known)
        return _written(order, answer)

    def _context(self, order: Order) -> Context:
        """The node's context of a run. Of its state, array records outlive the child."""
        from flwr.app import Context

        if order.run_id not in self._contexts:
            # One run at a time: a device that has moved on does not come back to an older one.
            self._contexts.clear()
            self._contexts[order.run_id] = Context(
                run_id=1,
                node_id=order.node_id,
                node_config=dict(self._options),
                state=self._memory.recall(order.run_id),
                run_config={},
            )
        return self._contexts[order.run_id]


def _written(order: Order, answer: Any) -> Done:
    """The answer's arrays at ``reply_path``. What a child that dies leaves there nobody reads: its answer never came."""
    from fogline_shared import flower

    encoded = flower.encode(answer.content)
    records = json.dumps(encoded.records)
    if not encoded.arrays:
        return Done(task_id=order.task_id, records_json=records)
    (record,) = encoded.arrays.values()
    buffers = tensors.encode(flower.arrays_of(record))
    path = Path(order.reply_path)
    # Not flushed: the agent does that, should the coordinator not take it at once.
    with path.open("wb") as file:
        file.writelines(buffers)
    return Done(task_id=order.task_id, digest=tensors.digest(buffers), size=path.stat().st_size, records_json=records)


if __name__ == "__main__":
    main()
