"""What the API needs of the process it runs in. ``bootstrap`` builds an object of this shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol, cast

from fastapi import Depends, Request

from fogline_server.batch.places import Places
from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.devices.authority import CertificateAuthority
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.jobs.runner import JobKind
from fogline_server.schedules.service import Action
from fogline_server.settings import Settings
from fogline_server.trust.keys import OnlineKeys


class Services(Protocol):
    """The parts of a coordinator that its routes use."""

    @property
    def settings(self) -> Settings: ...
    @property
    def db(self) -> Database: ...
    @property
    def blobs(self) -> BlobStore: ...
    @property
    def doorbell(self) -> Doorbell: ...
    @property
    def authority(self) -> CertificateAuthority: ...
    @property
    def online_keys(self) -> OnlineKeys: ...
    @property
    def places(self) -> Places: ...
    @property
    def kinds(self) -> Mapping[str, JobKind]: ...
    @property
    def actions(self) -> Mapping[str, Action]: ...


def services_of(request: Request) -> Services:
    """The services of the application that answers this request."""
    return cast("Services", request.app.state.services)


Parts = Annotated[Services, Depends(services_of)]
