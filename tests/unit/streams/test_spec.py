"""Pipelines as files: what is wrong is named, with its table."""

from __future__ import annotations

import tomllib

import pytest

from fogline_client import Predictor
from fogline_client.streams.spec import parse_spec, read_spec
from fogline_shared.errors import FoglineError

WHOLE = """
[[sources]]
kind = "json_lines"
sensor = "a"

[[sensors]]
name = "a"
channels = 3
fusion = "hold"

[windows]
rate_hz = 50
length = 8
hop = 4

[[stages]]
kind = "majority"
votes = 3

[[sinks]]
kind = "ring"
path = "answers.ring"

[limits]
queue = 8
"""


def test_a_whole_file_says_what_it_will_do(tmp_path):
    (tmp_path / "pipeline.toml").write_text(WHOLE)
    spec = read_spec(tmp_path / "pipeline.toml")
    plan = spec.plan().splitlines()
    assert [line.split()[0] for line in plan] == ["source", "sensor", "windows", "stage", "sink", "limits"]
    assert "3 × 8, 0.16 s long, one every 0.08 s" in plan[2]
    assert spec.build(Predictor()).summary().samples == 0


def test_without_windows_the_plan_says_frames():
    assert "frames" in parse_spec({"sources": [{"kind": "json_lines"}]}).plan()


@pytest.mark.parametrize(
    ("found", "put", "code", "told"),
    [
        ("[limits]", "[limit]", "invalid_pipeline", "no table named 'limit'; known: limits"),
        ("queue = 8", "queue = 0", "invalid_pipeline", "limits: queue must be an integer from 1"),
        ("queue = 8", 'when_full = "block"', "invalid_pipeline", "limits: when_full is one of drop_oldest, reject"),
        ("queue = 8", "queues = 8", "invalid_pipeline", "limits: .*'queues'"),
        ("hop = 4\n", "", "invalid_pipeline", "windows: .*'hop'"),
        ("hop = 4", "hop = true", "invalid_pipeline", "windows: hop"),
        ("[windows]", "[[windows]]", "invalid_pipeline", r"windows is a table, \[windows\]"),
        ("[[stages]]", "[stages]", "invalid_pipeline", r"stages is a list of tables, \[\[stages\]\]"),
        ("votes = 3", "votes = 0", "invalid_pipeline", r"stages 1 \(majority\): votes"),
        ("votes = 3", "vote = 3", "invalid_pipeline", r"stages 1 \(majority\): .*'vote'"),
        ('"majority"', '"plurality"', "unknown_stage", "known: events, majority"),
        ('"answers.ring"', "7", "invalid_pipeline", r"sinks 1 \(ring\): path is a text, got 7"),
        ('"ring"', '"drain"', "unknown_sink", "known: callback, json_lines, mqtt, ring"),
        ('"hold"', '"held"', "unknown_fusion", "sensors 1: .*known: hold, linear, nearest"),
        (
            '"json_lines"',
            '"json"',
            "unknown_source",
            r"sources 1 \(json\): .*known: callable, image_folder, json_lines",
        ),
        ('kind = "json_lines"\n', "", "invalid_pipeline", "sources 1 needs kind"),
        ('sensor = "a"', "sensor = 1", "invalid_pipeline", "sources 1: sensor"),
        ('sensor = "a"', "speed = 1", "invalid_source_option", r"sources 1 \(json_lines\): .*'speed'"),
        ('[[sources]]\nkind = "json_lines"\nsensor = "a"', "", "invalid_pipeline", "a pipeline needs a source"),
        ("channels = 3", "channels = 3\n[[sensors]]\nname = 'a'\nchannels = 1", "invalid_pipeline", "different names"),
        ("channels = 3", "channels = 3\nmax_gap_s = 9", "", ""),
        ("hop = 4", "hop = 4\nwait_s = 0.01", "invalid_pipeline", "wait_s"),
        ("[windows]\nrate_hz = 50\nlength = 8\nhop = 4", "", "invalid_pipeline", "sensors are fused into windows"),
    ],
)
def test_what_is_wrong_is_named_with_its_table(found, put, code, told):
    assert found in WHOLE
    raw = tomllib.loads(WHOLE.replace(found, put))
    if not code:
        parse_spec(raw)
        return
    with pytest.raises(FoglineError, match=told) as refused:
        parse_spec(raw)
    assert refused.value.code == code
    assert refused.value.message in str(refused.value)


@pytest.mark.parametrize("content", [b"= no toml", b"\xff\xfe", None])
def test_a_file_that_is_no_toml(tmp_path, content):
    path = tmp_path / "pipeline.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FoglineError) as refused:
        read_spec(path)
    assert refused.value.code == "bad_pipeline_file"
