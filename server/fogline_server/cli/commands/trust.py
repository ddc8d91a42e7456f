"""``fogline trust``: the key ceremony, on files; and the coordinator's side of it, over REST."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fogline_server.cli import show
from fogline_server.cli.options import AsJson, api, group, json_argument

if TYPE_CHECKING:
    from fogline_server.trust.ceremony import OnlinePublic, Standing

app = group("Who may say what devices install: TUF keys and metadata.")

PASSPHRASE = "FOGLINE_TRUST_PASSPHRASE"  # noqa: S105 - the variable's name

CeremonyFolder = Annotated[Path, typer.Argument(help="Of the ceremony: keys/ and metadata/.")]
Coordinator = Annotated[Path, typer.Option(help="What `fogline trust show --json` printed at the coordinator.")]
Encrypted = Annotated[
    bool,
    typer.Option(help=f"New keys' files have a passphrase, asked for or in {PASSPHRASE}."),
]
RootDays = Annotated[int, typer.Option(help="How long the root holds.")]
TargetsDays = Annotated[int, typer.Option(help="How long the delegation to the coordinator holds.")]

_ROLES = (
    ("role", "role"),
    ("version", "version"),
    ("until", show.when("expires_at")),
    ("expired", "expired"),
    ("artifacts", "targets"),
)
_STANDINGS = (
    ("document", lambda s: f"{s['version']}.{s['role']}.json"),
    ("until", show.when("expires_at")),
    ("signed by", "signed"),
    ("not by", "missing"),
    ("lacks", lambda s: f"{s['lacking']} signatures" if s["lacking"] else "nothing"),
)


@app.command("init")
def init(
    folder: CeremonyFolder,
    *,
    coordinator: Coordinator,
    root_keys: int = 3,
    threshold: Annotated[int, typer.Option(help="How many root keys must sign a root.")] = 2,
    root_days: RootDays = 365,
    targets_days: TargetsDays = 365,
    encrypted: Encrypted = True,
    as_json: AsJson = False,
) -> None:
    """Make root and targets keys, and version 1 of both documents, signed. Needs no network and no database."""
    from fogline_server.db.base import utc_now
    from fogline_server.trust.ceremony import Folder, Plan

    plan = Plan(root_keys=root_keys, threshold=threshold, root_days=root_days, targets_days=targets_days)
    ceremony = Folder(folder)
    ceremony.init(_online(coordinator), plan, passphrase=_new_passphrase(encrypted=encrypted), now=utc_now())
    _print_standings(ceremony.standings(), as_json=as_json)
    show.note(f"now keep the keys in {folder / 'keys'} apart, and `fogline trust import {folder / 'metadata'}`")


@app.command("show")
def show_trust(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(help="Of a ceremony; none: ask the coordinator.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Who signs what, until when: at the coordinator, or in a ceremony's folder."""
    if folder is not None:
        from fogline_server.trust.ceremony import Folder

        return _print_standings(Folder(folder).standings(), as_json=as_json)
    item = api(context).get("/v1/trust")
    if as_json:
        return show.json_out(item)
    if not item["set_up"]:
        return show.note("no root of trust: devices install nothing; see `fogline trust init`")
    if item["development"]:
        show.note("DEVELOPMENT: the root keys lie at the coordinator; whoever takes it over can sign anything")
    root = item["root"]
    show.record(
        item,
        (
            ("root keys", lambda _: f"{root['threshold']} of {', '.join(key['name'] for key in root['keys'])}"),
            ("targets keys", lambda _: ", ".join(key["name"] for key in root["targets_keys"])),
            ("offered, not in use", lambda _: [r for r, key in item["online_keys"].items() if not key["in_use"]]),
        ),
    )
    return show.table([{"role": name, **role} for name, role in item["roles"].items()], _ROLES, empty="no roles")


@app.command("sign")
def sign(
    folder: CeremonyFolder,
    *,
    key: Annotated[
        list[Path] | None, typer.Option(help="A private key's file, may be repeated; default: all in keys/.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign the newest root and targets with the keys that may."""
    from fogline_server.trust.ceremony import Folder

    _print_standings(Folder(folder).sign(key or (), _passphrase), as_json=as_json)


@app.command("rotate")
def rotate(
    folder: CeremonyFolder,
    *,
    replace: Annotated[
        list[str] | None, typer.Option(help="An offline key's name (root-2, targets-1); may be repeated.")
    ] = None,
    coordinator: Annotated[
        Path | None, typer.Option(help="Name the online keys that it offers: `fogline trust show --json` there.")
    ] = None,
    root_days: RootDays = 365,
    targets_days: TargetsDays = 365,
    encrypted: Encrypted = True,
    as_json: AsJson = False,
) -> None:
    """Make the next version of root and targets, to be signed: other keys, or only a later end."""
    from fogline_server.db.base import utc_now
    from fogline_server.trust.ceremony import Folder, Plan

    standings = Folder(folder).rotate(
        replace or (),
        _online(coordinator) if coordinator else None,
        Plan(root_days=root_days, targets_days=targets_days),
        passphrase=_new_passphrase(encrypted=encrypted) if replace else None,
        now=utc_now(),
    )
    _print_standings(standings, as_json=as_json)


@app.command("import")
def import_documents(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(exists=True, help="Signed documents, or a ceremony's metadata folder.")
    ],
    *,
    begin_anew: Annotated[
        bool, typer.Option("--begin-anew", help="Forget the trusted root: every device must enrol again.")
    ] = False,
) -> None:
    """Bring a ceremony's signed documents to the coordinator, which signs everything online anew under them."""
    from fogline_server.trust.ceremony import read

    paths = [path for each in files for path in (sorted(each.glob("*.json")) if each.is_dir() else [each])]
    for path in paths:
        read(path)  # what is no document is told by its name
    answer = api(context).post(
        "/v1/trust:import", {"documents": [path.read_text() for path in paths], "begin_anew": begin_anew}
    )
    show.note(f"imported: {', '.join(answer['imported']) or 'nothing new'}")


@app.command("new-online-keys")
def new_online_keys(context: typer.Context) -> None:
    """Make new online keys at the coordinator, for the next ceremony to name."""
    api(context).post("/v1/trust:new-online-keys")
    show.note("made; now `fogline trust show --json` for `fogline trust rotate --coordinator`")


def _online(coordinator: Path) -> OnlinePublic:
    from fogline_server.trust.ceremony import online_from_json

    return online_from_json(json_argument(f"@{coordinator}", "--coordinator"))


def _print_standings(standings: Sequence[Standing], *, as_json: bool) -> None:
    items: list[dict[str, Any]] = [{**asdict(s), "expires_at": s.expires_at.isoformat()} for s in standings]
    if as_json:
        show.json_out(items)
    else:
        show.table(items, _STANDINGS, empty="nothing")


def _new_passphrase(*, encrypted: bool) -> bytes | None:
    if not encrypted:
        return None
    given = os.environ.get(PASSPHRASE) or typer.prompt(
        "passphrase of the new keys", hide_input=True, confirmation_prompt=True, err=True
    )
    return str(given).encode()


def _passphrase(path: Path) -> bytes:
    given = os.environ.get(PASSPHRASE) or typer.prompt(f"passphrase of {path}", hide_input=True, err=True)
    return str(given).encode()
