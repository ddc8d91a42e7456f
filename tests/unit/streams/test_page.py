"""``docs/streams.md`` names every plugin, and what it shows works."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fogline_client.sources.base import Sample
from fogline_client.streams.spec import parse_spec
from fogline_shared.plugins import module_names

PAGE = (Path(__file__).resolve().parents[3] / "docs/streams.md").read_text()


def block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_the_file_on_the_page_is_a_pipeline():
    spec = parse_spec(tomllib.loads(block("toml")))
    assert (spec.windows.length, spec.sources[0][0], spec.limits.deadline_ms) == (128, "accelerometer", 200)


@pytest.mark.parametrize(
    ("heading", "package"),
    [
        ("## Sources", "fogline_client.sources"),
        ("## From samples", "fogline_client.streams.fusion"),
        ("## Stages", "fogline_client.streams.stages"),
        ("## Sinks", "fogline_client.streams.sinks"),
    ],
)
def test_each_plugin_has_its_row(heading, package):
    section = PAGE[PAGE.index(heading) :].split("\n## ")[0]
    _, *names = re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)
    assert sorted(names) == module_names(package)


def test_the_python_on_the_page_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def read_my_sensor():
        for i in range(200):
            yield Sample(x=np.zeros(6), time=i / 50)

    exec(block("python"), {"read_my_sensor": read_my_sensor})
    assert capsys.readouterr().out == "samples 200; windows 2; predictions 0; delivered 0; dropped window.no_model 2\n"
