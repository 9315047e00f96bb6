"""Controllers that issue certificates, an API server that knows tokens, and what the kubelet gives to handlers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from podvisor_common.api import core
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import CONFIGMAPS, CRDS, SECRETS, ObjectKey
from podvisor_common.tls.identities import AUDIENCE, TRUST_CONFIG_MAP, TRUST_FIELD
from podvisor_controller.handlers.issuing import serve_identity
from podvisor_controller.webhooks.certificates import Certificates
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

    def told(self) -> Json:
        """The ConfigMap in which handlers are told whom to trust."""
        found = self.server.get(CONFIGMAPS, ObjectKey(NAMESPACE, TRUST_CONFIG_MAP))
        assert found is not None
        return found

    def trust(self) -> bytes:
        """Whom they are told to trust."""
        return bytes(self.told()["data"][TRUST_FIELD].encode())

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


class Handler:
    """A handler on n1, whose token the kubelet keeps in a file, and whose controllers are on `port`."""

    def __init__(
        self, directory: Path, port: int, authorities: bytes = b"", *, token: str = TOKEN
    ) -> None:
        file = directory / "token"
        file.write_text(f"{token}\n")
        self.certificate = HandlerCertificate(file, f"127.0.0.1:{port}", SERVER_NAME, node="n1")
        self.trust(authorities)

    def trust(self, authorities: bytes) -> None:
        """Have it told whom to trust, as its informer does; nobody when that is empty."""
        metadata = ObjectMeta(namespace=NAMESPACE, name=TRUST_CONFIG_MAP)
        data = {TRUST_FIELD: authorities.decode()}
        new = core.ConfigMap(metadata=metadata, data=data) if authorities else None
        self.certificate.learn(ObjectKey(NAMESPACE, TRUST_CONFIG_MAP), None, new)
