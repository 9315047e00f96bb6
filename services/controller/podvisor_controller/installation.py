"""The KubeVirt object: made from the ConfigMap that the chart renders, and told how the installation is doing.

Invariant: what a person changes in the object is theirs. It is applied without force, so a chart upgrade brings only what
nobody else has set; values are applied once per change of the ConfigMap, not whenever the object differs.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import structlog
from podvisor_common.api import core, meta, v1
from podvisor_common.api.v1 import names
from podvisor_common.errors import Terminal
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.errors import ApiConflict
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import KUBEVIRTS, ObjectKey

from podvisor_controller.installation_status import status_of
from podvisor_controller.settings import Settings

KUBEVIRT_NAME = "kubevirt"
CONFIG_MAP_NAME = "podvisor-config"
CONFIG_MAP_FIELD = "spec.json"
FIELD_MANAGER = "virt-controller"

_log = structlog.get_logger(__name__)


def without(spec: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """`spec` less the fields with these paths, such as `.spec.configuration.cpuModel`."""
    rest: dict[str, Any] = copy.deepcopy(dict(spec))
    for field in fields:
        *parents, last = field.removeprefix(".spec.").split(".")
        place: Any = rest
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.pop(last, None)
    return rest


class BadSettings(Terminal):
    """The ConfigMap does not hold a specification; the settings stay what they are until it is changed."""


class Installation:
    """Keeps the KubeVirt object of the install namespace."""

    def __init__(
        self,
        client: KubeClient,
        settings: Settings,
        *,
        version: str,
        config_maps: Informer[core.ConfigMap],
        kubevirts: Informer[v1.KubeVirt],
        handlers: Callable[[], core.DaemonSet | None],
    ) -> None:
        self._client = client
        self._settings = settings
        self._version = version
        self._config_maps = config_maps
        self._kubevirts = kubevirts
        self._handlers = handlers
        self._applied: str | None = None
        self.key = ObjectKey(settings.pod_namespace, KUBEVIRT_NAME)

    @property
    def kubevirt(self) -> v1.KubeVirt | None:
        """The object as last seen."""
        return self._kubevirts.get(self.key)

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Bring the object a step nearer to the ConfigMap and its status up to date. Raises ApiError and BadSettings."""
        if key != self.key:
            return None
        config_map = self._config_maps.get(ObjectKey(key.namespace, CONFIG_MAP_NAME))
        text = ((config_map.data if config_map else None) or {}).get(CONFIG_MAP_FIELD)
        kubevirt = self.kubevirt
        if kubevirt is not None and kubevirt.metadata.is_being_deleted:
            return None
        if text is not None and (kubevirt is None or text != self._applied):
            kubevirt = await self._apply_spec(text)
        if kubevirt is not None:
            await self._write_status(kubevirt)
        return None

    async def _apply_spec(self, text: str) -> v1.KubeVirt | None:
        try:
            spec = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise BadSettings(f"{CONFIG_MAP_NAME}: {CONFIG_MAP_FIELD}: {error}") from error
        try:
            kubevirt = await self._apply({"spec": spec})
        except ApiConflict as conflict:
            # Somebody set these by hand, and keeps them.
            fields = [cause.field for cause in conflict.causes]
            _log.warning("settings of the chart overridden in the cluster", fields=fields)
            kubevirt = await self._apply({"spec": without(spec, fields)})
        self._applied = text
        return kubevirt

    async def _write_status(self, kubevirt: v1.KubeVirt) -> None:
        wanted = status_of(
            kubevirt,
            version=self._version,
            architecture=self._settings.architecture,
            handlers=self._handlers(),
            now=meta.format_time(meta.now()),
        )
        if wanted != kubevirt.status:
            await self._apply({"status": wanted}, subresource="status")

    async def _apply(self, body: dict[str, Any], *, subresource: str | None = None) -> v1.KubeVirt:
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KUBEVIRT,
            "metadata": {"name": self.key.name, "namespace": self.key.namespace},
            **body,
        }
        answer = await self._client.apply(
            KUBEVIRTS,
            self.key,
            manifest,
            field_manager=FIELD_MANAGER,
            force=subresource is not None,
            subresource=subresource,
        )
        kubevirt = msgspec.json.decode(answer, type=v1.KubeVirt)
        self._kubevirts.learn(kubevirt)
        return kubevirt
