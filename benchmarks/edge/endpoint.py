"""The agent's local endpoint in a process of its own, as the agent runs it: ``endpoint.py MODEL FOLDER [name=value ...]``.

Writes ``FOLDER/addresses.json`` when it serves. Every prediction is counted for telemetry, as in the agent.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from fogline_client import Predictor
from fogline_client.config import facts
from fogline_client.serving.options import ServingOptions
from fogline_client.serving.rpc import GrpcEndpoint
from fogline_client.serving.server import serve_sockets
from fogline_client.serving.sockets import open_sockets
from fogline_client.telemetry.recorder import Recorder
from fogline_shared.longevity import settle


async def main(model: Path, folder: Path, options: ServingOptions) -> None:
    """Serve until killed."""
    predictor = Predictor.from_file(model, observe=Recorder(now=time.time()).observe)
    uds = folder / "http.sock"
    listeners = open_sockets(host="127.0.0.1", port=0, uds_path=uds)
    grpc, ready = GrpcEndpoint("127.0.0.1", options), asyncio.Event()
    settle(keep_bytes=8 << 20)
    serving = serve_sockets(predictor, listeners, uds_path=uds, ready=ready, options=options, grpc=grpc)
    task = asyncio.create_task(serving)
    await ready.wait()
    addresses = {"tcp": listeners[0].getsockname()[1], "unix": str(uds), "grpc": grpc.targets[0]}
    part = folder / "addresses.part"
    part.write_text(json.dumps(addresses))
    part.rename(folder / "addresses.json")
    await task


if __name__ == "__main__":
    given = ServingOptions.from_json({"grpc_port": 0, **facts(sys.argv[3:])})
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), given))
