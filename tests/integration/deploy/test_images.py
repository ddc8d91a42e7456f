"""The Dockerfiles and the file's promises, as far as they can be tried without building; test_compose.py runs them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from deployment import compose, made_secrets
from dockerfiles import ROOT, extras_of, packages_of, stage_of, stages

DOCKERFILES = sorted((ROOT / "deploy/docker").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SECRET = re.compile(r"SECRET|PASSWORD|TOKEN|API_KEY")


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    answer = compose(made_secrets())
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)["services"]


@pytest.fixture(scope="module")
def builds(services: dict[str, dict]) -> dict[str, dict]:
    """What is built here, by image."""
    return {service["image"]: service["build"] for service in services.values() if "build" in service}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_what_is_copied_exists_and_reaches_the_builder(path: Path) -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = [rest.split() for stage in stages(path).values() for word, rest in stage.lines if word == "COPY"]
    sources = [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in let_through, source


def test_each_image_installs_extras_that_exist_and_starts_a_script_that_is_installed(builds: dict[str, dict]) -> None:
    for image, build in builds.items():
        stage, _ = stage_of(build)
        assert extras_of(build), image
        assert extras_of(build) <= set(PROJECT["optional-dependencies"]), image
        started = re.findall(r"\bfogline(?:-agent)?\b", " ".join(stage.command))
        assert started, image
        assert set(started) <= set(PROJECT["scripts"]), image


def test_the_slim_agent_has_what_it_infers_with_and_none_of_the_rest(builds: dict[str, dict]) -> None:
    slim, training, server = (
        packages_of(extras_of(builds[image])) for image in ("fogline-agent", "fogline-agent-train", "fogline-server")
    )
    assert {"onnxruntime", "grpcio"} <= slim
    assert not slim & {"torch", "flwr", "fastapi", "sqlalchemy", "celery", "pandas", "scikit-learn"}
    assert {"torch", "flwr"} <= training
    assert "celery" not in training
    assert {"torch", "flwr", "fastapi", "celery", "psycopg", "psycopg-binary"} <= server


def test_no_image_runs_as_root_or_holds_a_secret(builds: dict[str, dict]) -> None:
    for image, build in builds.items():
        stage, sources = stage_of(build)
        assert stage.user not in {"", "root", "0"}, image
        given = [rest for each in (stage, *sources) for word, rest in each.lines if word in {"ENV", "ARG"}]
        assert not [text for text in given if SECRET.search(text)], image


def test_every_image_from_elsewhere_is_pinned_to_a_patch(services: dict[str, dict], builds: dict[str, dict]) -> None:
    images = [service["image"] for service in services.values() if "build" not in service]
    images += [each.base for build in builds.values() for each in (stage_of(build)[0], *stage_of(build)[1])]
    for image in images:
        assert re.search(r"^postgres:\d+\.\d+-|:\d+\.\d+\.\d+-|@sha256:", image), image
    python = {image for image in images if image.startswith("python:")}
    assert len(python) == 1, "a virtual environment fits only the interpreter that it was made with"


def test_who_runs_recipes_holds_no_key_to_the_rest(services: dict[str, dict]) -> None:
    for name in ("worker", "trainer", "sensor"):
        service = services[name]
        assert not {"FOGLINE_SECRET", "FOGLINE_BOOTSTRAP_API_KEY", "FOGLINE_API_KEY"} & set(service["environment"])
        assert "keys" not in {volume["source"] for volume in service["volumes"]}
    for name in ("trainer", "sensor"):
        shared = set(services[name]["networks"]) & set(services["postgres"]["networks"])
        assert not shared, f"{name} can reach the database"
    # The admin API has no TLS of its own.
    published = {port["target"]: port.get("host_ip") for port in services["coordinator"]["ports"]}
    assert published == {8470: "127.0.0.1", 8471: None, 8472: None}


def test_every_service_is_checked_restarted_and_waited_for(services: dict[str, dict]) -> None:
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped", name
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy", (name, other)
        if "build" in service:
            assert service["read_only"], name
            assert service["init"], name
            assert service["cap_drop"] == ["ALL"], name


def test_the_operators_page_names_every_variable_the_file_reads() -> None:
    page = (ROOT / "docs/deploy.md").read_text()
    for name in set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text())):
        assert name in page, name
