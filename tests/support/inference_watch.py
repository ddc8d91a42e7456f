"""Somebody who needs predictions all the time, and remembers each one that failed."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from types import TracebackType
from typing import Self

import numpy as np
from agent_process import AgentProcess
from parts import eventually

from fogline_client.inference.predictor import Predictor
from fogline_shared.errors import FoglineError

_EVERY_S = 0.03


class InferenceWatch:
    """Use as a context manager; leaving the block fails the test if a prediction failed or was wrong.

    From entering on, each agent is asked without a pause: over its HTTP endpoint, and through a predictor in this process
    that follows its folder. ``answers``: the right label of ``x`` by the digest of each artifact that may serve. Every
    agent must have an active model.
    """

    def __init__(
        self, agents: Sequence[AgentProcess], *, recipe: str, x: np.ndarray, answers: Mapping[str, int]
    ) -> None:
        self._watchers = {agent.state_dir: _Watcher(agent, recipe, x, answers) for agent in agents}

    def __enter__(self) -> Self:
        for watcher in self._watchers.values():
            watcher.start()
        for watcher in self._watchers.values():
            eventually(lambda watcher=watcher: watcher.endpoint and watcher.followed, 60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for watcher in self._watchers.values():
            watcher.stop()
        if error is None:
            assert not self.failures, self.failures

    @property
    def failures(self) -> list[str]:
        """Everything that went wrong so far, in words."""
        return [failure for watcher in self._watchers.values() for failure in watcher.failures]

    @contextlib.contextmanager
    def outage(self, agent: AgentProcess) -> Iterator[None]:
        """The block kills the agent and starts it again; the outage ends with the first answer of its endpoint.

        Meanwhile its endpoint may refuse connections, and nothing else: a new process that listens must answer. The
        predictor on its folder has no outage.
        """
        watcher = self._watchers[agent.state_dir]
        watcher.may_be_down = True
        yield
        before = len(watcher.endpoint)
        eventually(lambda: len(watcher.endpoint) > before, 60)
        watcher.may_be_down = False

    def served(self, agent: AgentProcess) -> list[str]:
        """The digests of the artifacts that answered over the endpoint, as they followed each other."""
        return [digest for digest, _ in groupby(self._watchers[agent.state_dir].endpoint)]

    def followed(self, agent: AgentProcess) -> list[str]:
        """The same of the predictor that follows the agent's folder."""
        return [digest for digest, _ in groupby(self._watchers[agent.state_dir].followed)]


class _Watcher:
    """Asks one agent. ``endpoint`` and ``followed`` are the digests of all answers so far."""

    def __init__(self, agent: AgentProcess, recipe: str, x: np.ndarray, answers: Mapping[str, int]) -> None:
        self._agent, self._recipe, self._x, self._answers = agent, recipe, x, answers
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, *x.shape], "data": x.reshape(-1).tolist()}
        self._body = json.dumps({"inputs": [tensor], "outputs": [{"name": "label"}]}).encode()
        self._predictor: Predictor | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-{agent.state_dir.name}")
        self._url = ""
        self.may_be_down = False
        self.endpoint: list[str] = []
        self.followed: list[str] = []
        self.failures: list[str] = []

    def start(self) -> None:
        self._predictor = Predictor.open(self._agent.state_dir, poll_s=_EVERY_S)
        self._url = str(self._agent.status()["url"])
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        assert self._predictor is not None
        self._predictor.close()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._ask_predictor()
            self._ask_endpoint()

    def _ask_predictor(self) -> None:
        assert self._predictor is not None
        try:
            answer = self._predictor.predict(self._x)
        except FoglineError as error:
            self._failed("predictor", error)
            return
        self._note(self.followed, answer.digest, answer.label)

    def _ask_endpoint(self) -> None:
        might_be_down = self.may_be_down
        try:
            request = urllib.request.Request(
                f"{self._url}/v2/models/{self._recipe}/infer",
                data=self._body,
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=10) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            self._failed("endpoint", f"{error.code} {error.read()!r}")
        except (OSError, http.client.HTTPException) as error:
            if not (might_be_down or self.may_be_down):
                self._failed("endpoint", error)
            # Started again, it listens on another port.
            self._url = str(self._agent.status().get("url") or self._url)
        else:
            self._note(self.endpoint, answer["model_version"], answer["outputs"][0]["data"][0])

    def _note(self, kept: list[str], digest: str, label: int) -> None:
        if self._answers.get(digest) != label:
            self._failed("answer", f"{digest} says {label}, expected {self._answers}")
        kept.append(digest)

    def _failed(self, what: str, why: object) -> None:
        self.failures.append(f"{time.strftime('%H:%M:%S')} {self._agent.state_dir.name} {what}: {why!r}")
