"""``docs/edge.md``, followed to the letter on a device of a real coordinator."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from agent_process import until
from artifacts import artifact

from fogline_server.devices.tables import Device
from fogline_shared.states import AssignmentState

FOGLINE = Path(__file__).parents[3]
GUIDE = (FOGLINE / "docs" / "edge.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


async def test_the_guide_followed_to_the_letter(tmp_path, token, cloud, sqlite_database) -> None:
    install, *steps = [line for block in blocks("bash") for line in block.splitlines()]
    assert install == "pip install 'fogline[edge]'", "what this environment has, and more"
    (program,) = blocks("python")
    (tmp_path / program.split("\n", 1)[0].removeprefix("# ")).write_text(program)
    assert len([line for line in program.splitlines() if line.startswith((" ", "with", "from", "import"))]) <= 6
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "TOKEN": token(),
        "FOGLINE_AGENT_NAME": "watch-1",
        "FOGLINE_AGENT_PORT": "0",
    }
    folder = tmp_path / ".fogline-agent"

    async def follow(line: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-c", line],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    enroll, run, first, unit, doctor, cost = steps
    assert "enrolled watch-1" in await follow(enroll)
    with sqlite_database.read() as session:
        device_id = session.query(Device).one().id
    assert run.endswith(" &")
    with (tmp_path / "log").open("wb") as log:
        agent = await asyncio.create_subprocess_exec(
            *("bash", "-c", f"exec {run.removesuffix(' &')}"), cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
    try:
        target = cloud.publish(artifact())
        await cloud.ends(cloud.roll_out(device_id, target), AssignmentState.SUCCEEDED)
        await until(lambda: json.loads((folder / "status.json").read_text())["online"])
        assert re.fullmatch(r"walk \d\.\d+\n", await follow(first))
        await follow(unit)
        assert f"--state-dir {folder}" in (tmp_path / "fogline-agent.service").read_text()
        assert await follow(doctor) == "all is well\n"
        assert "CPU seconds" in await follow(cost)
    finally:
        agent.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await agent.wait() == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
