"""Joules where the machine tells them, and honesty where it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from artifacts import artifact
from lone_device import LoneDevice
from typer.testing import CliRunner

from fogline_client.cli import app
from fogline_client.energy import Meter, exposition, measure
from fogline_server.devices.authority import CertificateAuthority


def package(sys_class: Path, name: str = "intel-rapl:0", *, kind: str = "package-0", used_uj: int = 0) -> Path:
    """A counter of RAPL; its file."""
    folder = sys_class / "powercap" / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "max_energy_range_uj").write_text("1000000\n")
    counter = folder / "energy_uj"
    counter.write_text(f"{used_uj}\n")
    return counter


def battery(sys_class: Path, **values: object) -> Path:
    folder = sys_class / "power_supply" / "BAT0"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in {"type": "Battery", "status": "Discharging", **values}.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def test_packages_are_added_up_and_their_counters_begin_anew(tmp_path: Path) -> None:
    first = package(tmp_path, used_uj=900_000)
    second = package(tmp_path, "intel-rapl:1", kind="package-1")
    package(tmp_path, "intel-rapl:0:0", kind="core")  # a part of the first
    package(tmp_path, "intel-rapl:2", kind="psys")  # the whole machine, the packages included
    meter = Meter(tmp_path)
    assert (meter.source, meter.joules()) == ("rapl", 0.0)
    first.write_text("100000\n")
    second.write_text("300000\n")
    assert meter.joules() == pytest.approx(0.5)
    second.write_text("400000\n")
    assert meter.joules() == pytest.approx(0.6)


@pytest.mark.parametrize("told", [{"power_now": 2_000_000}, {"current_now": -500_000, "voltage_now": 4_000_000}])
def test_a_battery_is_its_power_over_time(tmp_path: Path, told: dict[str, int]) -> None:
    battery(tmp_path, **told)
    now = [100.0]
    meter = Meter(tmp_path, clock=lambda: now[0])
    assert meter.source == "battery"
    now[0] += 3.0
    assert meter.joules() == pytest.approx(6.0)
    battery(tmp_path, status="Charging", **told)
    assert (meter.joules(), meter.source) == (pytest.approx(6.0), ""), "what it takes now comes from elsewhere"


def test_what_the_idle_machine_takes_is_taken_off(tmp_path: Path) -> None:
    counter = package(tmp_path)
    now, used = [0.0], [0.0]

    def take(seconds: float, *, joules: float = 0.0) -> None:
        """Time goes by, in which the machine takes a watt, and somebody something beside."""
        now[0] += seconds
        used[0] += 1.0 * seconds + joules
        counter.write_text(str(round(used[0] * 1e6) % 1_000_000))

    cost = measure(
        lambda: take(0.01, joules=0.002), seconds=0.2, meter=Meter(tmp_path), sleep=take, clock=lambda: now[0]
    )
    assert cost.source == "rapl"
    assert cost.joules == pytest.approx(2.0, rel=1e-3), "2 mJ each"


def test_what_prometheus_reads(tmp_path: Path) -> None:
    none = exposition(Meter(tmp_path))
    assert float(value(none, "process_cpu_seconds_total")) > 0
    assert int(value(none, "process_resident_memory_bytes")) > 1 << 20
    assert "joules" not in none, "not told where they are not known"
    counter = package(tmp_path)
    meter = Meter(tmp_path)
    counter.write_text("250000")
    assert value(exposition(meter), "fogline_machine_joules_total") == "0.250"


def value(text: str, name: str) -> str:
    (found,) = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")]
    return found


def test_without_a_counter_only_processor_time_is_told(tmp_path: Path) -> None:
    cost = measure(lambda: sum(range(1000)), seconds=0.05, meter=Meter(tmp_path))
    assert (cost.joules, cost.source) == (None, "cpu_seconds")
    assert cost.cpu_s > 0


def test_the_command_tells_of_the_active_model(tmp_path: Path) -> None:
    device = LoneDevice.make(tmp_path / "watch-1", CertificateAuthority.open(tmp_path / "keys", "127.0.0.1"))
    ask = ["cost", "--seconds", "0.1", "--json", "--state-dir", str(device.root)]
    none = CliRunner().invoke(app, ask)
    assert (none.exit_code, json.loads(none.stderr)["error"]["code"]) == (3, "no_model")
    device.install(artifact())
    told = json.loads(CliRunner().invoke(app, ask).stdout)
    assert 0 < told["cpu_s_per_1000"] < 10
    assert (told["joules_per_1000"] is None) == (told["energy_source"] == "cpu_seconds")
    assert told["cpus"] >= 1
