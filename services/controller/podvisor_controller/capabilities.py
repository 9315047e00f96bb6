"""What the cluster can do, found out by asking the API server rather than by its version.

Invariant: nothing is ever created. What cannot be found out stays unknown, and unknown counts as possible: a pod that
fails for that reason says so itself.
"""

import asyncio

import msgspec
import structlog
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError, ApiInvalid
from podvisor_common.kube.resources import PODS

REPEAT_S = 60.0

_log = structlog.get_logger(__name__)


class _Volume(msgspec.Struct, frozen=True):
    name: str
    image: dict[str, str] | None = None


class _Spec(msgspec.Struct, frozen=True):
    volumes: list[_Volume] = []


class _Pod(msgspec.Struct, frozen=True):
    spec: _Spec


async def takes_image_volumes(client: KubeClient, namespace: str) -> bool | None:
    """Whether the API server takes a pod with an OCI image as a volume; None when that cannot be told now."""
    try:
        answer = await client.create(PODS, namespace, _probe(namespace), dry_run=True)
    except ApiInvalid:
        # Without the feature the field is dropped, and a volume without a source is invalid.
        return False
    except ApiError as error:
        _log.warning("image volumes not probed", error=str(error))
        return None
    pod = msgspec.json.decode(answer, type=_Pod)
    return any(volume.image for volume in pod.spec.volumes)


class ImageVolumes:
    """The latest answer to takes_image_volumes(). A new one is for new pods only."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self.supported: bool | None = None

    async def probe(self) -> None:
        """Ask once. An unknown answer leaves the known one."""
        answer = await takes_image_volumes(self._client, self._namespace)
        if answer is None or answer == self.supported:
            return
        self.supported = answer
        _log.info("image volumes probed", supported=answer)

    async def run(self) -> None:
        """Ask again now and then for as long as the answer is not yes; it stays yes in a running cluster."""
        while not self.supported:
            await asyncio.sleep(REPEAT_S)
            await self.probe()


def _probe(namespace: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "podvisor-image-volume-probe", "namespace": namespace},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65534,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": "probe.invalid/never-run",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "resources": {
                        "requests": {"cpu": "1m", "memory": "1Mi"},
                        "limits": {"cpu": "1m", "memory": "1Mi"},
                    },
                    "volumeMounts": [{"name": "probe", "mountPath": "/probe"}],
                }
            ],
            "volumes": [{"name": "probe", "image": {"reference": "probe.invalid/never-pulled"}}],
        },
    }
