"""ONNX Runtime is loaded by us and stays silent: it leaves no identifier and no queue of reports behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = "from fogline_client.inference.engines import onnxruntime_cpu; import onnxruntime"


def test_loading_the_engine_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    # Without these: in a CI environment ONNX Runtime is silent by itself.
    env = {name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "CI"}}
    places = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache")}
    subprocess.run([sys.executable, "-c", PROGRAM], env={**env, **places}, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
