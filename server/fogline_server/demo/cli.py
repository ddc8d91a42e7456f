"""The command ``fogline demo``: tells the story with progress on stderr and tables on stdout, and writes the reports."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fogline_server.demo import report, tables
from fogline_server.demo.plant import Plant, running
from fogline_server.demo.story import FIRST, LATER, SEED, VARIANTS, Seen, Story, Yardsticks, measured
from fogline_shared.errors import FoglineError


def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Keep the demo's files here; default: a temporary folder.")
    ] = None,
    reports: Annotated[Path, typer.Option(help="Where report.json and report.html go.")] = Path(),
    *,
    stay: Annotated[
        bool | None, typer.Option("--stay/--leave", help="Leave the console up at the end; default: on a terminal.")
    ] = None,
) -> None:
    """Run the whole loop on real data: ten devices learn, distil, quantize, roll out, infer and score a table."""
    staying = sys.stdin.isatty() and sys.stdout.isatty() if stay is None else stay
    try:
        reports.mkdir(parents=True, exist_ok=True)
        if folder is not None:
            _run(folder, reports, staying=staying)
        else:
            with tempfile.TemporaryDirectory(prefix="fogline-demo-") as name:
                _run(Path(name), reports, staying=staying)
    except FoglineError as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        raise typer.Exit(130) from None


def _run(folder: Path, reports: Path, *, staying: bool) -> None:
    began = time.monotonic()
    with running(folder) as plant:
        facts = _tell(plant, began)
        (reports / "report.json").write_text(json.dumps(facts, indent=2) + "\n")
        (reports / "report.html").write_text(report.page(facts))
        console = Console(width=max(100, Console().width))
        for table in tables.all_tables(facts):
            console.print(table)
        console.print(f"{facts['seconds']:.0f} s in all; every number above was measured in this run.")
        console.print(f"report.json and report.html are in {reports.resolve()}", soft_wrap=True)
        if staying:
            console.print(
                f"The console is at {plant.url} (key: {plant.api_key_file.read_text().strip()}). Ctrl-C ends."
            )
            while True:
                time.sleep(1)


def _tell(plant: Plant, began: float) -> dict[str, Any]:
    """The story from start to end, as the facts of the report."""
    err = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<44}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed:>6}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=err) as progress:
        step = _steps(progress, plain=not err.is_terminal, out=err)
        starting = step("coordinator, worker and Redis start")
        rest = plant.start_up()
        starting(1, 1, plant.url)
        facts = _loop(Story(plant=plant, rest=rest, step=step), step)
    return {"seconds": time.monotonic() - began, **facts}


def _loop(story: Story, step: Callable[[str], Seen]) -> dict[str, Any]:
    yardsticks = Yardsticks()
    try:
        story.enrol()
        runs = story.federate()
        release = story.release(runs)
        yardsticks.start()
        good = story.roll_out(release, "rollout: two devices, then all", gates=FIRST, expect="SUCCEEDED")
        broken_release = story.break_it(release)
        # They end first: the broken release and the batch job are timed on a quiet machine.
        measuring = step("yardsticks: local-only and centralised")
        yards = yardsticks.results()
        measuring(1, 1, "")
        broken = story.roll_out(broken_release, "rollout of a broken release", gates=LATER, expect="ROLLED_BACK")
        batch = story.batch(release)
        search = story.search(release)
    finally:
        yardsticks.close()
    unseen = measured("unseen", *(str(story.artifact(v)) for v in VARIANTS))
    own = measured("personal", str(story.artifact("student_fp32")), str(SEED))
    told = {"runs": runs, "release": release, "unseen": unseen, "yardsticks": yards, "good": good, "broken": broken}
    told |= {"search": search, "checked": story.checked(), "fleet": story.fleet()}
    return report.facts({**told, "personal": own, "batch": batch})


def _steps(progress: Progress, *, plain: bool, out: Console) -> Callable[[str], Seen]:
    """Progress bars on a terminal; one line a finished step elsewhere."""

    def step(title: str) -> Seen:
        task = progress.add_task(title, total=1, note="")
        finished: list[bool] = []

        def seen(done: int, total: int, note: str) -> None:
            progress.update(task, completed=done, total=max(1, total), note=note)
            if plain and total and done >= total and not finished:
                finished.append(True)
                out.print(f"done: {title}", highlight=False)

        return seen

    return step
