"""Check docker-compose.yml with the real Compose; required secrets get placeholders, none of them is started."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "FOGLINE_SECRET", "FOGLINE_BOOTSTRAP_API_KEY")


def main() -> None:
    """Exit 0 when Compose accepts the file, and refuses it without any one of its secrets."""
    beside = Path(sys.executable).with_name("docker-compose")
    compose = str(beside) if beside.exists() else shutil.which("docker-compose")
    if compose is None:
        sys.exit("docker-compose is missing: it comes with `pip install -e '.[dev]'`")
    # An .env beside the file is the operator's; here it would fill in what must be seen to be missing.
    file = ["--env-file", os.devnull, "-f", str(ROOT / "docker-compose.yml")]
    command = [compose, *file, "--profile", "devices", "config", "-q"]
    bare = {name: value for name, value in os.environ.items() if name not in SECRETS}
    given = dict.fromkeys(SECRETS, "placeholder")
    subprocess.run(command, check=True, env={**bare, **given})
    for name in SECRETS:
        without = {**bare, **given, name: ""}
        answer = subprocess.run(command, check=False, env=without, capture_output=True, text=True)
        if answer.returncode == 0 or f"required variable {name} is missing" not in answer.stderr:
            sys.exit(f"docker-compose.yml starts without {name}")
    print("docker-compose.yml is valid, and refuses to start without any of its secrets")  # noqa: T201


if __name__ == "__main__":
    main()
