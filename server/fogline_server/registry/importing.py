"""A foreign ONNX file → a release of one variant. A job's body."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from fogline_server.blobs.store import BlobStore
from fogline_server.compression.engine import manifest_of, open_session, run
from fogline_server.compression.stamp import with_answers, write_manifest
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.registry.build import add_variants
from fogline_server.registry.model import check_name
from fogline_server.registry.service import building_release, get_variant, ready_release
from fogline_shared.errors import Corrupt, InvalidInput
from fogline_shared.manifest import Manifest
from fogline_shared.recipe import Recipe, load_recipe

# What an inspection may take: memory beside a few copies of the file, computing, and waiting on a busy machine.
MEMORY_BYTES = 1 << 30
CPU_S = 60
TIMEOUT_S = 240


def inspect_apart(model: bytes, *, memory_bytes: int = MEMORY_BYTES, cpu_s: int = CPU_S) -> dict[str, Any]:
    """What :mod:`~fogline_server.registry.inspect_child` says of the file; raises its errors.

    Also raises Corrupt ``inspection_died`` when the file costs the child its life or its time.
    """
    limits = (str(memory_bytes + 6 * len(model)), str(cpu_s))
    command = [sys.executable, "-m", "fogline_server.registry.inspect_child", *limits]
    try:
        child = subprocess.run(command, input=model, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Corrupt("inspection_died", f"looking at the model takes longer than {TIMEOUT_S} s") from error
    if child.returncode == -signal.SIGXCPU:
        raise Corrupt("inspection_died", f"two examples cost the model more than {cpu_s} s of computing")
    try:
        answer: dict[str, Any] = json.loads(child.stdout)
    except ValueError as error:
        raise Corrupt("inspection_died", f"the model ended its inspection with code {child.returncode}") from error
    if "code" in answer:
        raise Corrupt(answer["code"], answer["message"])
    return answer


def import_model(ctx: JobContext) -> Outcome:
    """Inspect the file, settle its manifest, store the artifact, ask for its measurement."""
    release_id = str(ctx.spec["release_id"])
    with ctx.db.read() as session:
        imported = building_release(session, release_id).lineage["imported"]
        like = _manifest_of_release(session, ctx.blobs, imported["like"]) if imported["like"] else None
    model = ctx.blobs.read(imported["digest"])
    facts = inspect_apart(model)
    artifact, manifest = settle_manifest(model, facts, like)
    stored = ctx.blobs.put([artifact])

    def commit(session: Session) -> None:
        release = building_release(session, release_id)
        release.recipe = manifest.recipe
        release.default_variant = manifest.variant
        release.report = {"imported": {"manifest": "kept" if facts["manifest"] else "taken from like"}}
        add_variants(session, release, {manifest.variant: (stored.digest, stored.size)})

    return Outcome(result={"variant": manifest.variant, "digest": stored.digest}, commit=commit)


def _manifest_of_release(session: Session, blobs: BlobStore, release_id: str) -> Manifest:
    release = ready_release(session, release_id)
    digest = get_variant(session, release.id, release.default_variant).digest
    manifest = manifest_of(open_session(blobs.read(digest)))
    assert manifest is not None  # a READY release was measured, which needs one
    return manifest


def settle_manifest(model: bytes, facts: dict[str, Any], like: Manifest | None) -> tuple[bytes, Manifest]:
    """The artifact and its manifest: its own, checked, or one like ``like`` with answers of its own.

    Raises InvalidInput ``no_manifest``, ``unknown_recipe``; Corrupt ``wrong_signature``, ``known_answers_differ``.
    """
    if facts["manifest"] is not None:
        manifest = Manifest.from_json(facts["manifest"])
        _check_signature(manifest, facts, load_recipe(manifest.recipe))
        _check_answers(model, manifest)
        return model, manifest
    if like is None:
        raise InvalidInput("no_manifest", "the file has no manifest: name a release it is like")
    manifest = replace(like, input_name=facts["input_name"], output_name=facts["output_name"], known_answers=())
    _check_signature(manifest, facts, load_recipe(manifest.recipe))
    examples = np.stack([answer.array(like.input_shape) for answer in like.known_answers])
    manifest = with_answers(model, manifest, examples)
    return write_manifest(model, manifest), manifest


def _check_signature(manifest: Manifest, facts: dict[str, Any], recipe: Recipe) -> None:
    said = (manifest.input_name, manifest.output_name, list(manifest.input_shape), len(manifest.classes))
    found = (facts["input_name"], facts["output_name"], facts["input_shape"], facts["classes"])
    if said != found:
        raise Corrupt("wrong_signature", f"the manifest says {said}, the model has {found}")
    if list(manifest.input_shape) != list(recipe.input_shape) or list(manifest.classes) != list(recipe.classes):
        raise Corrupt("wrong_signature", f"input shape or classes are not those of recipe {recipe.name!r}")
    try:
        check_name(manifest.variant, what="variant name", limit=40)
    except InvalidInput as error:
        raise Corrupt("bad_manifest", f"variant {manifest.variant!r}: {error.message}") from error


def _check_answers(model: bytes, manifest: Manifest) -> None:
    if not manifest.known_answers:
        raise Corrupt("bad_manifest", "the manifest has no known answers")
    try:
        x = np.stack([answer.array(manifest.input_shape) for answer in manifest.known_answers])
    except ValueError as error:
        raise Corrupt("bad_manifest", f"a known answer is not an example of the model's input: {error}") from error
    got = run(open_session(model), x).argmax(axis=1).tolist()
    if got != [answer.label for answer in manifest.known_answers]:
        raise Corrupt("known_answers_differ", "the model does not give the answers its manifest promises")
