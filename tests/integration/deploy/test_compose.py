"""The deployment of docker-compose.yml, each service as a local process, from its first start to its end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from deployment import BIN, REQUIRED, Deployment, Service, compose, made_secrets, until
from dockerfiles import ROOT

AGENTS = ("trainer", "sensor")
RECIPE = {"TRAINER_RECIPE": "tiny", "TRAINER_OPTIONS": "seed=1"}
ENDED = {"SUCCEEDED", "FAILED", "CANCELLED", "READY", "PAUSED", "ROLLED_BACK"}


_DOCKER = """#!{python}
import os, sys
words = sys.argv[1:]
if words[:4] == ["compose", "exec", "-T", "coordinator"]:
    os.execvpe(words[4], words[4:], {inside!r})
assert words[0] == "compose" and "up" in words, words
os.execv({compose!r}, ["docker-compose", "--env-file", ".env", "-f", {file!r}, "config", "-q"])
"""


def follow(step: int, folder: Path, inside: Mapping[str, str] | None = None) -> dict[str, str]:
    """Run a block of docs/deploy.md to the letter; what ``.env`` in the folder holds then.

    A ``docker`` stands in: for ``up`` it lets Compose check the file, ``exec`` runs with the environment ``inside``.
    """
    docker = folder / "bin" / "docker"
    docker.parent.mkdir(exist_ok=True)
    real = {"compose": str(BIN / "docker-compose"), "file": str(ROOT / "docker-compose.yml")}
    docker.write_text(_DOCKER.format(python=sys.executable, inside=dict(inside or {}), **real))
    docker.chmod(0o755)
    block = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)[step]
    env = {"PATH": f"{docker.parent}:{os.environ['PATH']}"}
    answer = subprocess.run(
        ["sh", "-eu", "-c", block], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert (folder / ".env").stat().st_mode & 0o077 == 0
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with Deployment({**follow(0, tmp_path), **RECIPE}) as made:
        yield made


def api_of(coordinator: Service) -> httpx.Client:
    """The admin API, with URL and key from the service's own environment."""
    key = {"Authorization": f"Bearer {coordinator.env['FOGLINE_API_KEY']}"}
    return httpx.Client(base_url=coordinator.env["FOGLINE_URL"], headers=key, timeout=30)


def ends_well(api: httpx.Client, path: str, state: str) -> dict:
    found = until(lambda: api.get(path).raise_for_status().json(), lambda thing: thing["state"] in ENDED)
    assert found["state"] == state, json.dumps(found, indent=1)
    return found


def made(api: httpx.Client, path: str, **body: object) -> str:
    answer = api.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()["id"]


@pytest.mark.slow
def test_the_deployment_starts_enrols_trains_rolls_out_and_stops(deployment: Deployment, tmp_path: Path) -> None:
    coordinator, worker, redis = (deployment[name] for name in ("coordinator", "worker", "redis"))
    for service in (*deployment.ours, redis, deployment["postgres"]):
        assert not service.healthy(), f"{service.name} is healthy before it is started"

    redis.start()
    deployment.postgres.start()
    redis.becomes_healthy()
    assert redis.run("redis-cli", "-p", "6379", "-e", "ping", REDISCLI_AUTH="wrong").returncode != 0
    deployment["postgres"].becomes_healthy()
    coordinator.start()
    coordinator.becomes_healthy()
    worker.start()

    agents = enrolled(deployment, coordinator, tmp_path)
    worker.becomes_healthy()

    api = api_of(coordinator)
    run = made(api, "/v1/runs", recipe="tiny", size="student", rounds=2, min_devices=1)
    ends_well(api, f"/v1/runs/{run}", "SUCCEEDED")
    release = made(api, "/v1/releases", name="first", recipe="tiny", student_run=run, max_accuracy_drop=1.0)
    ends_well(api, f"/v1/releases/{release}", "READY")
    plan = {"stages": [100], "gates": [], "soak_s": 0, "probation_s": 0.2}
    rollout = made(api, "/v1/rollouts", release=release, plan=plan, start=True)
    artifact = ends_well(api, f"/v1/rollouts/{rollout}", "SUCCEEDED")["artifact_digest"]
    devices = {device["name"]: device for device in api.get("/v1/devices").json()["items"]}
    assert {name: device["active_digest"] for name, device in devices.items()} == dict.fromkeys(AGENTS, artifact)
    assert not any("/torch/" in path for path in deployment["sensor"].loaded())

    the_worker_knows_when_redis_is_gone(redis, worker)
    everything_stops(deployment, agents)


def enrolled(deployment: Deployment, coordinator: Service, folder: Path) -> list[Service]:
    """Both agents, started as their images start them: without a token they end, with one they enrol and run."""
    sensor = deployment["sensor"]
    sensor.start()
    assert sensor.process is not None
    assert sensor.process.wait(30) == 2
    assert "TOKEN" in sensor.told()
    deployment.configure({**follow(1, folder, coordinator.env), **RECIPE}, *AGENTS)
    agents = [deployment[name] for name in AGENTS]
    for agent in agents:
        agent.start()
    for agent in agents:
        agent.becomes_healthy()
    return agents


def the_worker_knows_when_redis_is_gone(redis: Service, worker: Service) -> None:
    code, left = redis.stop()
    assert (code, left) == (0, [])
    assert not redis.healthy()
    until(worker.healthy, lambda healthy: not healthy, 20)
    redis.start()
    redis.becomes_healthy()
    worker.becomes_healthy()


def everything_stops(deployment: Deployment, agents: list[Service]) -> None:
    """The worst order: the database first, then the coordinator, which its agents notice and survive."""
    coordinator, worker = deployment["coordinator"], deployment["worker"]
    deployment.postgres.stop()
    assert not deployment["postgres"].healthy()
    assert "503" in coordinator.check().stderr
    assert coordinator.stop() == (0, [])
    assert not coordinator.healthy()
    for agent in agents:
        answer = until(agent.check, lambda check: check.returncode != 0, 20)
        assert (answer.returncode, "offline" in answer.stderr) == (3, True), answer.stderr
        url = f"http://127.0.0.1:{deployment.port(agent.name, 8480)}/v2/health/ready"
        assert httpx.get(url).status_code == 200
        status = Path(agent.env["FOGLINE_AGENT_STATE_DIR"]) / "status.json"
        last = json.loads(status.read_text())
        assert agent.stop() == (0, []), agent.told()
        assert "not_running" in agent.check().stderr
        # Of an agent that was killed the file stays, and in a container the next process has the same id.
        status.write_text(json.dumps({**last, "pid": os.getpid(), "online": True}))
        assert "not_serving" in agent.check().stderr
    assert worker.stop() == (0, []), worker.told()
    assert not worker.healthy()
    for service in deployment.ours:
        assert service.strays() == [], f"{service.name} writes where its container is read-only"


def test_a_killed_workers_file_does_not_count(deployment: Deployment) -> None:
    worker = deployment["worker"]
    alive = Path(worker.env["FOGLINE_WORKER_ALIVE_FILE"])
    alive.touch()
    assert worker.healthy()
    os.utime(alive, (0, 0))
    assert not worker.healthy()


@pytest.mark.parametrize("missing", REQUIRED)
def test_compose_refuses_the_file_without_a_secret_and_names_it(missing: str) -> None:
    given = made_secrets()
    assert compose(given).returncode == 0
    for environment in ({**given, missing: ""}, {name: value for name, value in given.items() if name != missing}):
        answer = compose(environment)
        assert answer.returncode != 0
        assert f"required variable {missing} is missing a value: set {missing}" in answer.stderr


def test_processes_refuse_to_start_without_what_they_need(deployment: Deployment) -> None:
    deployment.postgres.start()
    password = deployment["postgres"].environment["POSTGRES_PASSWORD"]
    wrong = deployment["worker"].env["FOGLINE_DATABASE_URL"].replace(password, "guessed")
    cases = [
        ("coordinator", {"FOGLINE_SECRET": ""}, 2, "missing_setting: a deployment must set FOGLINE_SECRET"),
        ("worker", {"FOGLINE_REDIS_URL": ""}, 2, "missing_setting: a deployment must set FOGLINE_REDIS_URL"),
        ("coordinator", {"FOGLINE_BOOTSTRAP_API_KEY": "hunter2"}, 2, "malformed_api_key: FOGLINE_BOOTSTRAP_API_KEY"),
        ("coordinator", {"FOGLINE_DATABASE_URL": wrong}, 3, "database_unavailable: "),
        ("worker", {"FOGLINE_DATABASE_URL": wrong}, 3, "database_unavailable: "),
    ]

    def start(service: str, changed: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return deployment[service].run(*deployment[service].command, **changed)

    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(start, *zip(*[case[:2] for case in cases], strict=True)))
    for (service, changed, code, said), answer in zip(cases, answers, strict=True):
        assert (answer.returncode, said in answer.stderr) == (code, True), (service, changed, answer)
        assert not any(value and value in answer.stderr for value in (*changed.values(), password, "guessed"))
