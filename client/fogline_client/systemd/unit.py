"""The unit file of a device, with its own paths."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WATCHDOG_S = 60
# Where ProtectHome= hides everything.
_HOMES = ("/home", "/root", "/run/user")

_TEXT = """\
# Made by `fogline-agent unit`. Install it as /etc/systemd/system/fogline-agent.service, then:
#   systemctl daemon-reload && systemctl enable --now fogline-agent
[Unit]
Description=Fogline agent of {state_dir}
# It predicts without a network, so it does not wait for one.
After=network.target
# Nobody comes by to start it again: never give up.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command}
User={user}
UMask=0077
WatchdogSec={watchdog_s}
TimeoutStartSec=300
TimeoutStopSec=30
Restart=always
RestartSec=2
KillMode=mixed
# A training that takes too much memory is killed alone; the agent goes on predicting.
OOMPolicy=continue

ReadWritePaths={writable}
ProtectSystem=strict
ProtectHome={protect_home}
PrivateTmp=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, kw_only=True)
class Service:
    """``writable``: other folders that the agent writes to, for instance that of a socket."""

    state_dir: Path
    user: str
    command: Sequence[str]
    writable: Sequence[Path] = ()

    def text(self) -> str:
        """The unit file."""
        places = [self.state_dir, *self.writable]
        at_home = any(str(place).startswith(_HOMES) for place in (*places, Path(self.command[0]), Path(sys.prefix)))
        return _TEXT.format(
            state_dir=str(self.state_dir).replace("%", "%%"),
            # "$" begins a variable in commands only.
            command=" ".join(_quoted(word).replace("$", "$$") for word in self.command),
            user=self.user.replace("%", "%%"),
            watchdog_s=WATCHDOG_S,
            writable=" ".join(_quoted(str(place)) for place in places),
            protect_home="read-only" if at_home else "yes",
        )


def agent_command(state_dir: Path) -> list[str]:
    """How the agent of this very installation is started."""
    script = Path(sys.executable).with_name("fogline-agent")
    start = [str(script)] if script.exists() else [sys.executable, "-c", "from fogline_client.cli import run; run()"]
    return [*start, "run", "--state-dir", str(state_dir)]


def _quoted(word: str) -> str:
    """As systemd reads it back (systemd.service(5), "Command lines")."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if any(c in word for c in " \t\"'\\;") else escaped
