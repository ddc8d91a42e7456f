"""The tables the demo ends with. Everything comes from the report's facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

Facts = Mapping[str, Any]


def all_tables(facts: Facts) -> Iterator[Table]:
    """In the order of the story."""
    yield _accuracy(facts)
    yield _personal(facts)
    yield _choice(facts)
    yield _variants(facts)
    yield _forms(facts)
    yield _timeline(facts)
    yield _delivery(facts)
    yield _batch(facts)


def _table(title: str, caption: str, *columns: str) -> Table:
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _accuracy(facts: Facts) -> Table:
    accuracy = facts["accuracy"]
    table = _table(
        "Two people nobody trained on",
        f"Federated beats the mean device on its own by {accuracy['margin_points']:+.1f} points.",
        "training",
        "accuracy %",
    )
    table.add_row(f"local-only, mean of {accuracy['devices']}", _percent(accuracy["local_mean"]))
    table.add_row("local-only, best (picked on the test people)", _percent(accuracy["local_best"]))
    table.add_row("federated student", _percent(accuracy["federated"]), style="bold")
    table.add_row("federated teacher", _percent(accuracy["teacher"]))
    table.add_row("centralised student (all data in one place)", _percent(accuracy["central"]))
    return table


def _personal(facts: Facts) -> Table:
    personal = facts["personal"]
    kept = sum(person["kept"] for person in personal["people"])
    table = _table(
        f"The same two people, with {personal['own']} windows of their own: the first fifth of each recording",
        f"Tested on the other {personal['tested']:,}. A personal head is kept if it wins on the device's own validation "
        f"recordings: {kept} of {len(personal['people'])} did. The control shows whether the labels alone would do.",
        "student",
        "accuracy %",
    )
    table.add_row("federated, as released", _percent(personal["released"]))
    table.add_row("federated, with a personal head where it won", _percent(personal["personal"]), style="bold")
    table.add_row("control: from scratch on the same windows", _percent(personal["scratch"]))
    return table


def _choice(facts: Facts) -> Table:
    choice = facts["choice"]
    lead = choice["lead"]
    table = _table(
        f"Control or distilled: {choice['examples']} windows of the volunteer, {lead['groups']} recordings",
        choice["sentence"],
        "model",
        "holdout %",
    )
    for role, name in (("student", "control"), ("distilled", "distilled"), ("teacher", "teacher")):
        released = role == choice["chosen"]
        table.add_row(
            f"{role}{', released' if released else ''}", _percent(choice[name]), style="bold" if released else None
        )
    interval = f"{_points(lead['mean'])} ({_points(lead['low'])} to {_points(lead['high'])})"
    table.add_row("distilled minus student, points (95 % interval)", interval)
    return table


def _variants(facts: Facts) -> Table:
    table = _table(
        f"Release {facts['release']}",
        "Through ONNX Runtime, one thread, batch 1. int8 buys bytes; without VNNI it need not buy speed.",
        "variant",
        "unseen %",
        "holdout %",
        "bytes",
        "zstd",
        "p50 µs",
    )
    for row in facts["variants"]:
        table.add_row(
            row["name"],
            _percent(row["unseen"]),
            _percent(row["holdout"]),
            f"{row['bytes']:,}",
            f"{row['bytes_zstd']:,}",
            f"{row['p50_us']:.1f}",
        )
    return table


def _forms(facts: Facts) -> Table:
    search = facts["search"]
    table = _table(
        f"Search: forms of the student, for a device with little room ({search['trials']} trials)",
        f"The pick: {search['sentence']}. The best single method: {search['best_single_sentence']}.",
        "form",
        "chose %",
        "judged %",
        "worst class %",
        "bytes as sent",
        "p50 µs",
        "why not",
    )
    table.columns[0].overflow, table.columns[-1].justify = "fold", "left"
    for form in search["forms"]:
        table.add_row(
            form["chain"],
            _percent(form["accuracy"]),
            _percent(form["judged"]),
            _percent(form["worst_class"]),
            f"{form['size']:,}",
            f"{form['p50_us']:.1f}",
            "; ".join(form["why_not"]),
            style="bold" if form["name"] == search["pick"] else None,
        )
    for failed in search["failed"]:
        table.add_row(failed["chain"], "", "", "", "", "", "; ".join(failed["why_not"]))
    return table


def _timeline(facts: Facts) -> Table:
    broken = facts["rollouts"][-1]
    offered = f"The broken release was offered to {broken['devices_offered']} of {broken['devices']} devices."
    table = _table("Rollouts", offered, "what", "at", "why")
    table.columns[1].justify, table.columns[2].justify = "right", "left"
    for rollout in facts["rollouts"]:
        table.add_section()
        for entry in rollout["timeline"]:
            table.add_row(f"{rollout['title']}: {entry['what']}", f"+{entry['seconds']:.1f} s", entry["why"])
    return table


def _delivery(facts: Facts) -> Table:
    checked = facts["checked"]
    table = _table(
        "Bytes to the devices, all together",
        f"Device {checked['name']} serves {checked['active_digest'][:12]}: metadata that the keys of root {checked['trusted_root']} "
        "have signed list it, with throwaway keys of this demo. The second release goes as a delta from the first.",
        "rollout",
        "devices",
        "whole files",
        "sent",
        "share",
    )
    for rollout in facts["rollouts"]:
        whole, sent = rollout["whole_bytes"], rollout["wire_bytes"]
        table.add_row(
            rollout["title"], str(rollout["devices_offered"]), f"{whole:,}", f"{sent:,}", f"{sent / whole:.0%}"
        )
    return table


def _batch(facts: Facts) -> Table:
    batch = facts["batch"]
    caption = f"{batch['rows']:,} rows; the workers write one output a row whatever dies meanwhile."
    table = _table("Offline batch", caption, "how", "seconds", "rows/s")
    for name, key in (("fogline, workers", "ours"), ("a plain loop, one process", "plain")):
        table.add_row(name, f"{batch[key]['seconds']:.1f}", f"{batch[key]['rows_per_s']:,.0f}")
    return table


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
