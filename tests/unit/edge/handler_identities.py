"""Controllers that issue certificates, an API server that knows tokens, and what the kubelet gives to handlers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import CONFIGMAPS, CRDS, SECRETS, ObjectKey
from podvisor_common.tls.identities import AUDIENCE
from podvisor_controller.handlers.issuing import serve_identity
from podvisor_controller.webhooks.certificates import Certificates
from podvisor_controller.webhooks.publication import TRUST, TRUST_FIELD
from podvisor_handler.identity.certificate import HandlerCertificate

from tests.unit.edge.certificate_replicas import CRD, NAMESPACE, SECRET, Clock, replica
from tests.unit.kube.fake_apiserver import FakeApiServer

Json = dict[str, Any]
SERVER_NAME = "virt-controller.kubevirt.svc"
HANDLER = "system:serviceaccount:kubevirt:virt-handler"
LIFE = timedelta(hours=24)
TOKEN = "eyJhbGciOiJSUzI1NiJ9.the-token-of-a-handler.c2lnbmF0dXJl"


def vouched(**changes: Any) -> Json:
    """What the API server says of the token of the handler on n1, but for `changes`."""
    extra = {"authentication.kubernetes.io/node-name": ["n1"]}
    user = {"username": HANDLER, "uid": "u", "extra": extra}
    return {"authenticated": True, "user": user, "audiences": [AUDIENCE], **changes}


class Reviewer(FakeApiServer):
    """An API server that knows whose token is whose."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[str, Json] = {TOKEN: vouched()}
        self.reviews: list[Json] = []
        self.put(
            CRDS,
            {
                "metadata": {"name": CRD.name},
                "spec": {"group": "kubevirt.io", "conversion": {"strategy": "None"}},
            },
        )

    def _create(self, collection: tuple[str, str], namespace: str, obj: Json) -> Json:
        if collection[1] != "tokenreviews":
            return super()._create(collection, namespace, obj)
        self.reviews.append(obj["spec"])
        token = obj["spec"]["token"]
        nobody = {"authenticated": False, "error": f"[invalid bearer token, {token} is none]"}
        return {**obj, "status": self.tokens.get(token, nobody)}


@dataclass
class Controllers:
    """A replica that issues certificates, on `port`."""

    server: Reviewer
    client: KubeClient
    certificates: Certificates
    clock: Clock
    port: int = 0

    @asynccontextmanager
    async def issuing(self, *, life: timedelta = LIFE) -> AsyncIterator[None]:
        """It issues for the body, each time on the same port."""
        async with serve_identity(
            self.client, self.certificates, NAMESPACE, port=self.port, life=life
        ) as self.port:
            yield

    def trust(self) -> bytes:
        """What handlers are told to trust."""
        found = self.server.get(CONFIGMAPS, ObjectKey(NAMESPACE, TRUST))
        assert found is not None
        return bytes(found["data"][TRUST_FIELD].encode())

    async def make_another_authority(self) -> None:
        """Somebody has deleted the Secret."""
        self.server.remove(SECRETS, SECRET)
        await self.certificates.bring_up_to_date()


@asynccontextmanager
async def controllers() -> AsyncIterator[Controllers]:
    """A replica that leads and has an authority."""
    clock = Clock(datetime.now(UTC))
    async with Reviewer() as server, KubeClient.for_url(server.url, user_agent="test") as client:
        certificates = replica(client, clock)
        await certificates.bring_up_to_date()
        yield Controllers(server, client, certificates, clock)


@dataclass
class Mounted:
    """The directory in which the kubelet keeps token and authorities."""

    directory: Path

    def put(self, name: str, content: bytes) -> None:
        """Have a file with that content, from one moment to the next."""
        new = self.directory.parent / "new"
        new.write_bytes(content)
        new.rename(self.directory / name)

    def certificate(self, port: int, *, node: str = "n1") -> HandlerCertificate:
        """A handler with this directory, whose controllers are on `port`."""
        return HandlerCertificate(self.directory, f"127.0.0.1:{port}", SERVER_NAME, node=node)


def mounted(directory: Path, authorities: bytes | None, token: str = TOKEN) -> Mounted:
    """The directory, in which there may be no authorities yet."""
    made = Mounted(directory / "identity")
    made.directory.mkdir()
    made.put("token", f"{token}\n".encode())
    if authorities is not None:
        made.put("ca.crt", authorities)
    return made
