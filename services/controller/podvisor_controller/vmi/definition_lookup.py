"""The NetworkAttachmentDefinitions of an instance that is to get a pod, from the API server.

Invariant: reads only. Nobody watches them: a machine that starts asks for its own once, and one that waits for them ever more seldom.
What may not be read counts as there, since Multus will tell of it as well.
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

# Of an object. Where the kind is not known, there is no Status in the answer, and so no reason.
_NOT_FOUND = "NotFound"
_log = structlog.get_logger(__name__)


def _backoff() -> Backoff:
    """Pauses of up to half a minute."""
    return Backoff(initial_s=1.0, max_s=20.0)


@dataclass(slots=True)
class _Notes:
    """What is remembered of one instance that waits."""

    known: Definitions = ALL_THERE
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
        notes = self._notes.get(uid) or _Notes()
        if retry_left(notes.known.ask_again_at, self._clock()) > timedelta(0):
            return notes.known
        absent = {}
        for key in dict.fromkeys(definitions_needed(vmi).values()):
            if (absence := await self._absence_of(key)) is not None:
                absent[key] = absence
        if not absent:
            self.forget(uid)
            return ALL_THERE
        ask_again_at = self._clock() + timedelta(seconds=notes.backoff.next_s())
        notes.known = Definitions(absent, ask_again_at)
        self._notes[uid] = notes
        return notes.known

    def forget(self, uid: str) -> None:
        """The instance waits for none any more."""
        self._notes.pop(uid, None)

    async def _absence_of(self, key: ObjectKey) -> Absence | None:
        try:
            await self._client.get(NETWORK_ATTACHMENT_DEFINITIONS, key)
        except ApiNotFound as error:
            return Absence.DEFINITION if error.reason == _NOT_FOUND else Absence.KIND
        except ApiForbidden as error:
            _log.debug("a network's definition may not be read", definition=key, error=str(error))
        return None
