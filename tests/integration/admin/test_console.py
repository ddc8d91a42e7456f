"""The console in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from browser import browsing
from playwright.sync_api import Browser, Page, expect

from fogline_server.db import events
from fogline_server.db.base import utc_now
from fogline_server.devices.tables import Device
from fogline_server.jobs.service import get_job
from fogline_server.search.tables import Search
from fogline_server.training.tables import Run, Update


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test when anything goes wrong in it, or when it asks another host for something."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda said: trouble.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda asked: None if "//127.0.0.1:" in asked.url else trouble.append(asked.url))
    page.trouble = trouble  # the login's own 401 is no trouble: its test clears it
    yield page
    context.close()
    assert trouble == []


def log_in(page: Page, plant, role: str = "viewer") -> None:
    page.goto(plant.url)
    page.fill("#api_key", plant.keys[role])
    page.click("button")
    page.wait_for_selector("#fleet")


def test_a_wrong_key_is_told_and_a_right_one_lets_in(sqlite_plant, page):
    page.goto(sqlite_plant.url)
    assert page.url.endswith("/login")
    page.fill("#api_key", "fl_0123456789ab_0123456789abcdefghij")
    page.click("button")
    expect(page.get_by_role("alert")).to_have_text("no such API key")
    page.trouble.clear()
    log_in(page, sqlite_plant)
    cookie = page.context.cookies()[0]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert sqlite_plant.keys["viewer"] not in cookie["value"]
    page.click("text=Log out")
    page.wait_for_selector("#api_key")
    assert page.context.cookies() == []


def test_the_page_shows_the_fleet_the_curves_the_gates_and_the_jobs(plant, page):
    log_in(page, plant)
    expect(page.locator(".tile").first).to_contain_text("9/10")
    expect(page.locator(".fleet .online")).to_have_count(9)
    expect(page.locator(".fleet .offline")).to_contain_text("watch-10")
    expect(page.locator("#runs article").first).to_contain_text("5 of 8 rounds, 1 update refused")
    expect(page.locator("#runs svg.chart")).to_have_count(4)
    expect(page.locator("#runs .line circle").first.locator("title")).to_contain_text("holdout, round 1")
    expect(page.locator("#rollouts .stages li").filter(has_text="error rate")).to_contain_text("480 predictions")
    expect(page.locator("#jobs tbody tr").filter(has_text="batch").filter(has_text="RUNNING")).to_contain_text(
        "62,000/100,000"
    )
    expect(page.locator("#releases tbody tr").first).to_contain_text("champion")
    expect(page.locator("#link")).to_have_text("live")


def test_a_runs_page_says_why_updates_and_devices_are_left_out(plant, page):
    with plant.db.transaction() as session:
        running = session.get_one(Run, plant.ids.run)
        running.spec = {**running.spec, "eligibility": {"consent": True}}
        # As a step of an asynchronous run had taken it, two steps after its device began.
        session.get_one(Update, f"{plant.ids.run}-1-train-1").step = 3
    log_in(page, plant)
    page.click(f"#runs >> text={plant.ids.run}")
    expect(page.locator("#steps tbody tr")).to_have_text(re.compile(r"^\s*3\s*watch-\d+ 2 REFUSED\s*$"))
    refused = page.locator("#uncounted tbody tr")
    expect(refused).to_have_count(1)
    expect(refused).to_contain_text("REFUSED")
    expect(refused).to_contain_text("not_finite")
    rows = page.locator("#standings tbody tr")
    expect(rows).to_have_count(10)
    expect(rows.filter(has_text="watch-10")).to_contain_text("left out")
    expect(rows.filter(has_text="watch-10")).to_contain_text("It is offline")
    expect(rows.first).to_contain_text("It has no consent of its owner.")
    page.click("text=All runs")
    page.wait_for_selector("#fleet")


def test_a_searchs_page_shows_the_front_the_pick_and_why_not_the_others(sqlite_plant, page):
    def candidate(number: int, chain: str, accuracy: float, size: int, why: str = "") -> dict:
        half = {"accuracy": accuracy, "worst_class_accuracy": accuracy / 2, "calibration_error": 0.1}
        metrics = {"choosing": half, "judging": half, "bytes_zstd": size, "p50_us": 20.0}
        said = {"why_not": [why] if why else [], "metrics": metrics if size else None, "final": bool(size)}
        return {"number": number, "name": f"form-{number}", "chain": chain, "front": size == 9000, **said}

    rows = [
        candidate(0, "float16", 0.9, 9000),
        candidate(1, "low_rank", 0.8, 12_000, "80.00% where"),
        candidate(2, "qat", 0, 0, "not_traceable: loops"),
    ]
    sentence = "form-0: 90.0% right"
    result = {
        "pick": "form-0",
        "sentence": sentence,
        "best_single_sentence": sentence,
        "trials": 3,
        "cached": 1,
        "candidates": rows,
    }
    log_in(page, sqlite_plant)
    expect(page.locator("#searches article").first).to_contain_text("forms of ")
    with sqlite_plant.db.transaction() as session:
        session.get_one(Search, sqlite_plant.ids.search).result = result
        events.record(session, "search.ended", "search", sqlite_plant.ids.search)
    expect(page.locator("#searches article").first).to_contain_text("Form-0: 90.0% right.")
    page.click(f"#searches >> text={sqlite_plant.ids.search}")
    expect(page.locator("#pick")).to_have_text("Form-0: 90.0% right.")
    expect(page.locator("#front .dot")).to_have_count(2)
    expect(page.locator("#front .dot.pick text")).to_have_text("form-0")
    lines = page.locator("#candidates tbody tr")
    expect(lines).to_have_count(3)
    expect(lines.first).to_contain_text("pick")
    expect(lines.last).to_contain_text("not_traceable: loops")
    page.click("text=Overview")
    page.wait_for_selector("#fleet")


def test_a_rollout_tells_how_far_it_came_while_it_runs_and_after_it_was_rolled_back(sqlite_plant, page):
    log_in(page, sqlite_plant)
    stages = page.locator("#rollouts article").filter(has_text=sqlite_plant.ids.rollout).locator(".stages li")
    expect(stages.first).to_contain_text("devices: ")
    expect(stages.last).to_contain_text("PENDING")
    with sqlite_plant.client("operator") as operator:
        assert operator.post(f"/v1/rollouts/{sqlite_plant.ids.rollout}:rollback").status_code == 200
    page.reload()
    expect(stages.last).to_contain_text("never reached")


def test_the_page_follows_what_happens_without_being_reloaded(plant, page):
    log_in(page, plant)
    page.evaluate("window.untouched = true")
    with plant.db.transaction() as session:
        session.get_one(Run, plant.ids.run).rounds_done = 6
        session.get_one(Device, plant.ids.offline_device).lease_until = utc_now().replace(year=2100)
        events.record(session, "run.round_committed", "run", plant.ids.run, round=6)
    expect(page.locator("#runs article").first).to_contain_text("6 of 8 rounds", timeout=3000)
    expect(page.locator(".fleet .online")).to_have_count(10)
    assert page.evaluate("window.untouched")


def test_what_happens_while_the_stream_opens_is_not_missed(sqlite_plant, page):
    opening = []
    page.route("**/v1/events", lambda route: opening.append(route))  # noqa: PLW0108 - Playwright counts its arguments
    log_in(page, sqlite_plant)
    page.wait_for_function("() => document.readyState === 'complete'")
    page.wait_for_timeout(200)
    with sqlite_plant.db.transaction() as session:
        session.get_one(Run, sqlite_plant.ids.run).rounds_done = 7
        events.record(session, "run.round_committed", "run", sqlite_plant.ids.run, round=7)
    (stream,) = opening
    stream.continue_()
    expect(page.locator("#runs article").first).to_contain_text("7 of 8 rounds", timeout=3000)


def test_markup_in_data_is_shown_not_run(sqlite_plant, page):
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    with sqlite_plant.db.transaction() as session:
        get_job(session, sqlite_plant.ids.job).message = evil
        session.get_one(Device, sqlite_plant.ids.device).name = evil[:63]
    log_in(page, sqlite_plant)
    expect(page.locator("#jobs")).to_contain_text(evil)
    page.wait_for_timeout(300)
    assert page.title() == "Fogline"


def test_a_coordinator_that_forgets_the_session_asks_for_a_login(sqlite_plant, page):
    log_in(page, sqlite_plant, "viewer")
    with sqlite_plant.client() as admin:
        keys = {key["name"]: key["id"] for key in admin.get("/v1/api-keys").json()["items"]}
        admin.post(f"/v1/api-keys/{keys['viewer']}:revoke")
    page.wait_for_selector("#api_key", timeout=10_000)
    page.trouble.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_on_a_phone_and_in_both_schemes(sqlite_plant, browser, scheme):
    context = browser.new_context(color_scheme=scheme, viewport={"width": 390, "height": 800})
    page = context.new_page()
    log_in(page, sqlite_plant)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ground, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert _contrast(ground, ink) > 7
    context.close()


def _contrast(one: str, two: str) -> float:
    """WCAG 2.2 contrast ratio of two ``rgb(…)`` colours."""

    def luminance(text: str) -> float:
        parts = [int(part) / 255 for part in text.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_the_cookie_reads_and_never_writes(sqlite_plant):
    with httpx.Client(base_url=sqlite_plant.url) as client:
        answer = client.post("/login", data={"api_key": sqlite_plant.keys["admin"]})
        assert answer.status_code == 303
        assert client.get("/v1/devices").status_code == 200
        write = client.post(f"/v1/devices/{sqlite_plant.ids.device}:revoke")
        assert (write.status_code, write.json()["code"]) == (401, "missing_api_key")


def test_a_runs_page_is_for_those_who_logged_in_and_for_runs_that_are_there(sqlite_plant):
    with httpx.Client(base_url=sqlite_plant.url) as client:
        assert client.get(f"/console/runs/{sqlite_plant.ids.run}").headers["location"] == "/login"
        client.post("/login", data={"api_key": sqlite_plant.keys["viewer"]})
        assert client.get(f"/console/runs/{sqlite_plant.ids.run}").status_code == 200
        assert client.get("/console/runs/run_0").status_code == 404
        assert client.get("/console/runs/run_%00").status_code == 422


def test_pages_forbid_everything_from_elsewhere(sqlite_plant):
    answer = httpx.get(f"{sqlite_plant.url}/login")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert httpx.get(f"{sqlite_plant.url}/console/live").status_code == 401
    assert httpx.get(f"{sqlite_plant.url}/", follow_redirects=False).headers["location"] == "/login"
