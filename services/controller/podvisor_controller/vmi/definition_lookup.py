"""The NetworkAttachmentDefinitions of an instance that is to get a pod, from the API server.

Invariant: reads only. Nobody watches them: a machine that is to get a pod asks for its own once in ALL_THERE_FOR_S, and one that waits for
them ever more seldom. What may not be read counts as there, since Multus will tell of it as well.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.api import v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiForbidden, ApiNotFound
from podvisor_common.kube.resources import NETWORK_ATTACHMENT_DEFINITIONS, ObjectKey

from podvisor_controller.pauses import retry_left
from podvisor_controller.vmi.definitions import (
    ALL_THERE,
    Absence,
    Definitions,
    definitions_needed,
)

# How long definitions that were there are taken to be so still. A machine that waits for something else is looked at often meanwhile.
ALL_THERE_FOR_S = 10.0
# Of an object. Where the kind is not known, there is no Status in the answer, and so no reason.
_NOT_FOUND = "NotFound"
_log = structlog.get_logger(__name__)


def _backoff() -> Backoff:
    """Pauses of up to half a minute."""
    return Backoff(initial_s=1.0, max_s=20.0)


@dataclass(slots=True)
class _Notes:
    """What is remembered of one instance that has no pod."""

    needed: tuple[ObjectKey, ...]
    known: Definitions = ALL_THERE
    good_until: datetime | None = None
    backoff: Backoff = field(default_factory=_backoff)


class DefinitionLookup:
    """Finds out which definitions are not there."""

    def __init__(self, client: KubeClient, clock: Callable[[], datetime]) -> None:
        self._client = client
        self._clock = clock
        self._notes: dict[str, _Notes] = {}

    async def of(self, vmi: v1.VirtualMachineInstance, *, has_pod: bool) -> Definitions:
        """Those of an instance, if it is to get a pod: as they are, or as they were when it was asked last. ApiError when that cannot
        be found out."""
        uid = vmi.metadata.uid
        is_over = vmi.is_final or vmi.metadata.is_being_deleted
        if has_pod or is_over or vmi.status.node_name:
            self.forget(uid)
            return ALL_THERE
        needed = tuple(dict.fromkeys(definitions_needed(vmi).values()))
        if not needed:
            self.forget(uid)
            return ALL_THERE
        notes = self._notes.get(uid)
        if notes is None or notes.needed != needed:
            notes = self._notes[uid] = _Notes(needed)
        if retry_left(notes.good_until, self._clock()) == timedelta(0):
            await self._ask(notes)
        return notes.known

    def forget(self, uid: str) -> None:
        """The instance is to get no pod."""
        self._notes.pop(uid, None)

    async def _ask(self, notes: _Notes) -> None:
        """Find out which of those needed are there, and for how long that is to be taken for granted."""
        found = {key: await self._absence_of(key) for key in notes.needed}
        absent = {key: absence for key, absence in found.items() if absence is not None}
        if absent:
            notes.good_until = self._clock() + timedelta(seconds=notes.backoff.next_s())
            notes.known = Definitions(absent, notes.good_until)
            return
        notes.backoff.reset()
        notes.good_until = self._clock() + timedelta(seconds=ALL_THERE_FOR_S)
        notes.known = ALL_THERE

    async def _absence_of(self, key: ObjectKey) -> Absence | None:
        try:
            await self._client.get(NETWORK_ATTACHMENT_DEFINITIONS, key)
        except ApiNotFound as error:
            return Absence.DEFINITION if error.reason == _NOT_FOUND else Absence.KIND
        except ApiForbidden as error:
            _log.debug("a network's definition may not be read", definition=key, error=str(error))
        return None
