"""Use cases of the fleet: tokens, enrolment, renewal, revocation.

This module is the feature's door: what a device tells of itself (``presence``), who may train (``eligibility``) and
reading (``queries``) are reached through it too.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.base import new_id
from fogline_server.devices.authority import CertificateAuthority
from fogline_server.devices.eligibility import Wanted, eligible, ineligible_reasons
from fogline_server.devices.presence import disconnected, hello, set_attributes, touch, trained
from fogline_server.devices.queries import get_device, is_online, list_devices, list_tokens, require_admitted
from fogline_server.devices.rules import check_device_class, check_tags
from fogline_server.devices.tables import Device, EnrollmentToken
from fogline_shared.enrollment import PrintableToken, check_device_name, check_return, parse_csr
from fogline_shared.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from fogline_shared.protocol import Certificate
from fogline_shared.states import DEVICE, DeviceState

__all__ = [
    "Wanted",
    "create_token",
    "delete_token",
    "disconnected",
    "eligible",
    "enroll",
    "get_device",
    "hello",
    "ineligible_reasons",
    "is_online",
    "list_devices",
    "list_tokens",
    "renew",
    "require_admitted",
    "revoke",
    "set_attributes",
    "set_tags",
    "touch",
    "trained",
]

MAX_TOKEN_LIFE = timedelta(days=365)


def create_token(
    session: Session,
    authority_ca_pem: bytes,
    *,
    enroll_target: str,
    device_name: str | None = None,
    tags: Iterable[str] = (),
    ttl: timedelta,
    now: datetime,
    actor: str,
) -> tuple[EnrollmentToken, str]:
    """A single-use right to enrol, and the text to hand to the device. The text is shown once: only a hash is stored.

    ``device_name`` reserves it for one name; ``tags`` are given to the device. Raises InvalidInput ``bad_ttl``,
    ``bad_device_name``, ``bad_tag``.
    """
    if not timedelta(0) < ttl <= MAX_TOKEN_LIFE:
        raise InvalidInput("bad_ttl", f"a token lives more than 0 seconds and at most {MAX_TOKEN_LIFE.days} days")
    secret = secrets.token_urlsafe(32)
    token = EnrollmentToken(
        id=new_id("tok"),
        secret_hash=_hash(secret),
        device_name=None if device_name is None else check_device_name(device_name),
        tags=check_tags(tags),
        expires_at=now + ttl,
        created_at=now,
    )
    session.add(token)
    events.record(session, "token.created", "enrollment_token", token.id, actor=actor, device_name=device_name)
    text = PrintableToken(token_id=token.id, secret=secret, enroll_target=enroll_target, ca_pem=authority_ca_pem)
    return token, text.encode()


def delete_token(session: Session, token_id: str, *, actor: str) -> None:
    """Withdraw a token; a device that enrolled with it stays. Raises NotFound ``token_not_found``."""
    token = session.get(EnrollmentToken, token_id)
    if token is None:
        raise NotFound("token_not_found", f"no enrolment token {token_id!r}", token_id=token_id)
    session.delete(token)
    events.record(session, "token.deleted", "enrollment_token", token_id, actor=actor)


def enroll(
    session: Session,
    authority: CertificateAuthority,
    *,
    token_id: str,
    secret: str,
    device_name: str,
    csr_pem: bytes,
    device_class: str = "",
    days: float,
    gateway_target: str,
    now: datetime,
) -> Certificate:
    """Trade a token and a certificate request for an identity. On any error the token stays as it was.

    Raises Unauthenticated ``token_unknown``, ``token_used``, ``token_expired``; Forbidden ``token_for_other_device``,
    ``csr_for_other_device``; Conflict ``device_name_taken``; InvalidInput ``csr_invalid``, ``bad_device_name``,
    ``bad_device_class``. A revoked device gives up its name to the next one.
    """
    token = _usable_token(session, token_id, secret, now)
    check_device_name(device_name)
    if token.device_name is not None and token.device_name != device_name:
        raise Forbidden("token_for_other_device", f"the token is for another device than {device_name!r}")
    _check_subject(csr_pem, {device_name})
    device = Device(
        id=new_id("dev"),
        name=device_name,
        # Flower's node ids are unsigned 64-bit; SQL's integers are signed, and 0 is nobody.
        node_id=secrets.randbelow(2**62) + 1,
        device_class=check_device_class(device_class),
        state=DeviceState.PENDING,
        tags=token.tags,
        attributes={},
        recipes=[],
        created_at=now,
    )
    _spend(session, token_id, device.id, now)
    _free_name(session, device_name)
    certificate_pem, device.certificate_serial, device.certificate_until = authority.sign_device(
        csr_pem, common_name=device.id, days=days, now=now
    )
    session.add(device)
    try:
        session.flush()
    except IntegrityError as error:  # another device of that name enrolled this instant
        raise Conflict("device_name_taken", f"a device named {device_name!r} exists", name=device_name) from error
    events.record(
        session,
        "device.enrolled",
        "device",
        device.id,
        actor=f"device:{device.id}",
        name=device_name,
        token_id=token_id,
    )
    return Certificate(
        device_id=device.id,
        certificate_pem=certificate_pem,
        ca_pem=authority.ca_pem,
        gateway_target=gateway_target,
    )


def renew(
    session: Session,
    authority: CertificateAuthority,
    *,
    device_id: str,
    csr_pem: bytes,
    days: float,
    gateway_target: str,
    now: datetime,
) -> Certificate:
    """A new certificate for an enrolled device, which may bring a new key.

    The old certificate stays good until its end: the answer may be lost on its way. Raises Forbidden
    ``csr_for_other_device``, InvalidInput ``csr_invalid``, or like ``require_admitted``.
    """
    device = require_admitted(session, device_id, lock=True)
    _check_subject(csr_pem, {device.name, device.id})
    certificate_pem, device.certificate_serial, device.certificate_until = authority.sign_device(
        csr_pem, common_name=device.id, days=days, now=now
    )
    events.record(
        session, "device.renewed", "device", device.id, actor=f"device:{device.id}", serial=device.certificate_serial
    )
    return Certificate(
        device_id=device.id, certificate_pem=certificate_pem, ca_pem=authority.ca_pem, gateway_target=gateway_target
    )


def come_back(
    session: Session,
    authority: CertificateAuthority,
    *,
    certificate_pem: bytes,
    csr_pem: bytes,
    proof: bytes,
    days: float,
    grace_days: float,
    gateway_target: str,
    now: datetime,
) -> Certificate:
    """:func:`renew` for a device whose certificate ended while it was offline, and that holds its key still.

    Raises Unauthenticated ``certificate_unknown``, ``certificate_too_old``, ``proof_invalid``, and as :func:`renew`.
    """
    device_id, certificate = authority.holder_of(certificate_pem, now=now, grace=timedelta(days=grace_days))
    check_return(certificate, csr_pem, proof)
    return renew(
        session, authority, device_id=device_id, csr_pem=csr_pem, days=days, gateway_target=gateway_target, now=now
    )


def revoke(session: Session, device_id: str, *, now: datetime, actor: str, reason: str = "") -> Device:
    """End a device's right to connect, for good. Ring DEVICES with its id after commit: an open stream ends at once.

    Raises NotFound ``device_not_found``, Conflict ``illegal_transition``.
    """
    device = get_device(session, device_id)
    session.refresh(device, with_for_update=True)
    device.state = DEVICE.check(DeviceState(device.state), DeviceState.REVOKED)
    device.lease_until = None if device.lease_until is None else min(device.lease_until, now)
    events.record(session, "device.revoked", "device", device_id, actor=actor, name=device.name, reason=reason)
    return device


def set_tags(session: Session, device_id: str, tags: Iterable[str], *, actor: str) -> Device:
    """Replace a device's tags; raises NotFound ``device_not_found``, InvalidInput ``bad_tag``."""
    device = get_device(session, device_id)
    device.tags = check_tags(tags)
    events.record(session, "device.tagged", "device", device_id, actor=actor, tags=device.tags)
    return device


def _hash(secret: str) -> str:
    # The secret has 256 random bits: a plain hash cannot be searched, and needs no salt.
    return hashlib.sha256(secret.encode()).hexdigest()


def _usable_token(session: Session, token_id: str, secret: str, now: datetime) -> EnrollmentToken:
    """The token, if the secret fits; nobody learns more of a token than its holder."""
    token = session.get(EnrollmentToken, token_id)
    if token is None or not hmac.compare_digest(token.secret_hash, _hash(secret)):
        raise Unauthenticated("token_unknown", "no such enrolment token; ask for a new one")
    if token.used_at is not None:
        raise Unauthenticated("token_used", "this enrolment token has been used; a token enrols one device, once")
    if token.expires_at <= now:
        raise Unauthenticated("token_expired", f"this enrolment token expired at {token.expires_at:%Y-%m-%d %H:%M} UTC")
    return token


def _spend(session: Session, token_id: str, device_id: str, now: datetime) -> None:
    """Use the token up, guarded: of two devices that present it at once, one gets it."""
    spent = session.scalars(
        update(EnrollmentToken)
        .where(EnrollmentToken.id == token_id, EnrollmentToken.used_at.is_(None))
        .values(used_at=now, used_by=device_id)
        .returning(EnrollmentToken.id)
        .execution_options(synchronize_session=False)
    ).all()
    if not spent:
        raise Unauthenticated("token_used", "this enrolment token has been used; a token enrols one device, once")


def _free_name(session: Session, name: str) -> None:
    """Take the name from a revoked device, which is called by its id from now on."""
    holder = session.scalars(select(Device).where(Device.name == name).with_for_update()).one_or_none()
    if holder is None:
        return
    if holder.state != DeviceState.REVOKED:
        raise Conflict("device_name_taken", f"a device named {name!r} exists", name=name)
    holder.name = holder.id
    session.flush()


def _check_subject(csr_pem: bytes, allowed: set[str]) -> None:
    _, subject = parse_csr(csr_pem)
    if subject not in allowed:
        raise Forbidden("csr_for_other_device", f"the certificate request names {subject[:80]!r}, another device")
