"""The fleet's use cases on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fogline_server.db.base import utc_now
from fogline_server.db.events import events_after
from fogline_server.devices import service
from fogline_server.devices.authority import CertificateAuthority
from fogline_server.devices.tables import Device, EnrollmentToken
from fogline_shared.enrollment import PrintableToken, build_csr
from fogline_shared.errors import Conflict, FoglineError, Forbidden, InvalidInput, NotFound, Unauthenticated
from fogline_shared.protocol import Hello

NOW = utc_now()
KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> CertificateAuthority:
    return CertificateAuthority.open(tmp_path_factory.mktemp("authority"), "localhost")


@pytest.fixture
def fleet(database, authority):
    return Fleet(database, authority)


class Fleet:
    """The use cases, each in its own transaction."""

    def __init__(self, db, authority) -> None:
        self.db, self.authority = db, authority

    def token(self, **options) -> PrintableToken:
        options = {"ttl": timedelta(hours=1), "now": NOW, "actor": "test", **options}
        with self.db.transaction() as session:
            text = service.create_token(session, self.authority.ca_pem, enroll_target="localhost:1", **options)[1]
        return PrintableToken.decode(text)

    def enroll(self, name: str, token: PrintableToken | None = None, **options) -> str:
        token = token or self.token()
        with self.db.transaction() as session:
            return service.enroll(
                session,
                self.authority,
                token_id=token.token_id,
                secret=token.secret,
                device_name=name,
                csr_pem=build_csr(KEY, name),
                days=30,
                gateway_target="localhost:2",
                **{"now": NOW, **options},
            ).device_id

    def do(self, use_case, *args, **options):
        with self.db.transaction() as session:
            return use_case(session, *args, **options)

    def hello(self, device_id: str, *, boot_id: str = "b1", recipes=("tiny",), now=NOW, **options) -> Device:
        greeting = Hello(boot_id=boot_id, agent_version="1", recipes=recipes, **options)
        return self.do(service.hello, device_id, greeting, now=now, lease_s=45)

    def device(self, device_id: str) -> Device:
        with self.db.read() as session:
            return service.get_device(session, device_id)


def test_devices_that_race_for_one_token_get_one_enrolment(fleet):
    token = fleet.token()

    def attempt(n: int) -> str:
        try:
            return fleet.enroll(f"watch-{n}", token)
        except FoglineError as error:
            return error.code

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(attempt, range(6)))
    assert sorted(outcome for outcome in outcomes if outcome.startswith("token")) == ["token_used"] * 5
    with fleet.db.read() as session:
        row = session.get(EnrollmentToken, token.token_id)
        assert [row.used_by] == [device.id for device in session.query(Device)]


def test_devices_that_race_for_one_name_get_it_once(fleet):
    tokens = [fleet.token() for _ in range(6)]

    def attempt(token: PrintableToken) -> str:
        try:
            return fleet.enroll("watch-1", token)
        except Conflict as error:
            return error.code

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(attempt, tokens))
    assert outcomes.count("device_name_taken") == 5
    with fleet.db.read() as session:
        # Those who lost keep their token.
        assert session.query(EnrollmentToken).filter(EnrollmentToken.used_at.is_not(None)).count() == 1


def test_only_a_hash_of_the_secret_is_stored(fleet):
    token = fleet.token()
    with fleet.db.read() as session:
        row = session.get(EnrollmentToken, token.token_id)
        assert token.secret not in {str(value) for value in vars(row).values()}


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(days=-1), timedelta(days=366)])
def test_a_token_lives_for_a_sensible_time(fleet, ttl):
    with pytest.raises(InvalidInput, match="bad_ttl"):
        fleet.token(ttl=ttl)


def test_a_withdrawn_token_is_unknown(fleet):
    token = fleet.token()
    fleet.do(service.delete_token, token.token_id, actor="test")
    with pytest.raises(Unauthenticated, match="token_unknown"):
        fleet.enroll("watch-1", token)
    with pytest.raises(NotFound, match="token_not_found"):
        fleet.do(service.delete_token, token.token_id, actor="test")


def test_a_device_goes_from_pending_to_active_to_revoked_and_leaves_a_trail(fleet):
    device_id = fleet.enroll("watch-1")
    assert fleet.device(device_id).state == "PENDING"
    fleet.hello(device_id)
    assert fleet.device(device_id).state == "ACTIVE"
    fleet.do(service.revoke, device_id, now=NOW, actor="key_1", reason="lost")
    row = fleet.device(device_id)
    assert (row.state, service.is_online(row, NOW)) == ("REVOKED", False)
    with pytest.raises(Conflict, match="illegal_transition"):
        fleet.do(service.revoke, device_id, now=NOW, actor="key_1")
    with pytest.raises(Forbidden, match="device_revoked"):
        fleet.hello(device_id)
    with fleet.db.read() as session:
        kinds = [event.kind for event in events_after(session, 0) if event.subject_id == device_id]
    assert kinds == ["device.enrolled", "device.online", "device.revoked"]


def test_a_revoked_device_gives_up_its_name_and_stays_on_record(fleet):
    first = fleet.enroll("watch-1")
    with pytest.raises(Conflict, match="device_name_taken"):
        fleet.enroll("watch-1")
    fleet.do(service.revoke, first, now=NOW, actor="test")
    second = fleet.enroll("watch-1")
    assert (fleet.device(first).name, fleet.device(second).name) == (first, "watch-1")


def test_renewal_moves_the_end_of_the_certificate(fleet, authority):
    device_id, later = fleet.enroll("watch-1"), NOW + timedelta(days=20)
    before = fleet.device(device_id)
    fleet.do(
        service.renew,
        authority,
        device_id=device_id,
        csr_pem=build_csr(KEY, "watch-1"),
        days=30,
        gateway_target="localhost:2",
        now=later,
    )
    after = fleet.device(device_id)
    assert after.certificate_until - before.certificate_until == timedelta(days=20)
    assert after.certificate_serial != before.certificate_serial


def test_online_ends_with_the_lease_and_a_touch_extends_it(fleet):
    watch, other = fleet.enroll("watch-1"), fleet.enroll("watch-2")
    fleet.hello(watch)
    fleet.hello(other)
    fleet.do(service.revoke, other, now=NOW, actor="test")
    late = NOW + timedelta(seconds=46)
    assert not service.is_online(fleet.device(watch), late)
    fleet.do(service.touch, watch, other, now=late, lease_s=45)
    assert service.is_online(fleet.device(watch), late)
    assert not service.is_online(fleet.device(other), late)


def test_the_end_of_an_older_boots_stream_does_not_take_the_device_offline(fleet):
    watch = fleet.enroll("watch-1")
    fleet.hello(watch, boot_id="b1")
    fleet.hello(watch, boot_id="b2")
    fleet.do(service.disconnected, watch, "b1", now=NOW)
    assert service.is_online(fleet.device(watch), NOW)
    fleet.do(service.disconnected, watch, "b2", now=NOW)
    assert not service.is_online(fleet.device(watch), NOW)


def test_attributes_merge_and_tags_replace(fleet):
    watch = fleet.enroll("watch-1", fleet.token(tags=("old",)))
    fleet.hello(watch, attributes={"cores": 4})
    fleet.do(service.set_attributes, watch, {"battery_percent": 7})
    fleet.do(service.set_tags, watch, ["new"], actor="test")
    row = fleet.device(watch)
    assert (row.attributes, row.tags) == ({"cores": 4, "battery_percent": 7}, ["new"])
    with pytest.raises(InvalidInput, match="bad_attributes"):
        fleet.do(service.set_attributes, watch, {"x": "\0"})


def test_each_exclusion_has_a_reason_and_the_eligible_have_none(fleet):
    ids = {}
    for name, tags in (("good", ("a",)), ("untagged", ()), ("banned", ("a", "b")), ("other", ("a",)), ("off", ("a",))):
        ids[name] = fleet.enroll(name, fleet.token(tags=tags))
        fleet.hello(ids[name], recipes=() if name == "other" else ("tiny",))
    ids["new"] = fleet.enroll("new", fleet.token(tags=("a",)))
    fleet.do(service.disconnected, ids["off"], "b1", now=NOW)
    wish = service.Wanted(recipe="tiny", tags=["a"], exclude_tags=["b"])
    with fleet.db.read() as session:
        assert [device.name for device in service.eligible(session, wish, now=NOW)] == ["good"]
        found = {
            name: service.ineligible_reasons(service.get_device(session, i), wish, now=NOW) for name, i in ids.items()
        }
    assert {name: [reason.code for reason in reasons] for name, reasons in found.items()} == {
        "good": [],
        "untagged": ["tags_missing"],
        "banned": ["tags_excluded"],
        "other": ["recipe_missing"],
        "off": ["offline"],
        "new": ["not_active", "recipe_missing"],
    }
    assert {name: [reason.text for reason in reasons] for name, reasons in found.items()} == {
        "good": [],
        "untagged": ["lacks the tags a"],
        "banned": ["has the excluded tags b"],
        "other": ["has no recipe 'tiny' installed for training (has: none)"],
        "off": ["is offline"],
        "new": ["is PENDING, not ACTIVE", "has no recipe 'tiny' installed for training (has: none)"],
    }


def test_devices_are_listed_in_pages_and_by_what_they_are(fleet):
    ids = [
        fleet.enroll(f"watch-{n}", fleet.token(tags=(f"site_{n % 2}", "site_1x")), device_class=f"pi-{n % 2}")
        for n in range(4)
    ]
    fleet.hello(ids[0])
    newest = ids[::-1]

    def listed(**options) -> list[str]:
        with fleet.db.read() as session:
            return [device.id for device in service.list_devices(session, now=NOW, **options)]

    assert sorted(listed()) == sorted(newest)
    first = listed(limit=3)
    assert first + listed(limit=3, after=first[-1]) == listed()
    assert set(listed(tag="site_1")) == {ids[1], ids[3]}
    assert listed(tag="site%") == []
    assert listed(online=True) == listed(state="ACTIVE") == [ids[0]]
    assert set(listed(online=False)) == set(ids[1:])
    assert set(listed(device_class="pi-0")) == {ids[0], ids[2]}


def test_tokens_are_listed_newest_first(fleet):
    tokens = {fleet.token().token_id for _ in range(3)}
    with fleet.db.read() as session:
        page = service.list_tokens(session, limit=2)
        rest = service.list_tokens(session, limit=2, after=page[-1].id)
    assert {token.id for token in (*page, *rest)} == tokens
