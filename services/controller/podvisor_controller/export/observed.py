"""All that a decision about one VirtualMachineExport depends on, and the questions asked of it. Pure.

Invariant: an Observed is read in one go and never changes; every property is a fact, never a wish.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from podvisor_common.api import core
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.api.meta import find_condition

from podvisor_controller.export.identity import expires_at, token_secret_name
from podvisor_controller.export.pod import findings_of, served, served_by
from podvisor_controller.export.sources import Source
from podvisor_controller.pauses import retry_left

# Nobody tells when a pod that is not ours lets go of a claim, or takes one.
LOOK_AGAIN = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Observed:
    """One export and its surroundings. All from `users` on is what was asked of the API server, or is remembered of it."""

    export: VirtualMachineExport
    at: datetime
    source: Source
    pod: core.Pod | None  # of the export's name, whosever it is
    users: str = ""  # who has one of the claims, for a person; empty when nobody has
    authority: bytes = b""  # what clients are to trust, where there is something to be trusted
    trouble: str = ""  # what was refused, or went wrong with the last pod, for a person
    retry_at: datetime | None = None
    is_furnished: bool = False  # the pod has its certificate
    is_token_begun: bool = False  # the Secret with the token was asked for where there was none

    @property
    def is_over(self) -> bool:
        """The time of the export is up."""
        return self.at >= expires_at(self.export)

    @property
    def own_pod(self) -> core.Pod | None:
        """The pod, where it is the export's own and no predecessor's."""
        owner = self.pod.metadata.controller_reference() if self.pod is not None else None
        is_own = owner is not None and owner.uid == self.export.metadata.uid
        return self.pod if is_own else None

    @property
    def has_token(self) -> bool:
        """The Secret with the token is the user's, or was made for this export: before its pod, and before the status names it."""
        export = self.export
        is_named = export.status.token_secret_ref == token_secret_name(export)
        is_made = self.is_token_begun or self.own_pod is not None or is_named
        return export.spec.token_secret_ref is not None or is_made

    @property
    def is_available(self) -> bool:
        """The claims are there, and nobody who may write to them has them."""
        return self.source.is_available and not self.users

    @property
    def needs_users(self) -> bool:
        """It matters who else has the claims: a pod is about to be made for them, hands them out, or goes for their sake."""
        pod = self.own_pod
        if pod is not None:
            return self.is_ready or pod.metadata.is_being_deleted
        return self.pod is None and self.source.is_available and not self.retry_left

    @property
    def serves_others(self) -> bool:
        """The pod serves other claims than there are to be served by now."""
        pod = self.own_pod
        return pod is not None and served_by(pod) != served(self.source.volumes)

    @property
    def is_ready(self) -> bool:
        """The pod answers."""
        pod = self.own_pod
        if pod is None or pod.metadata.is_being_deleted or pod.status.phase != "Running":
            return False
        ready = find_condition(pod.status.conditions, "Ready")
        return ready is not None and ready.is_true

    @property
    def ended_because(self) -> str:
        """Why the pod has ended, for a person."""
        pod = self.own_pod
        if pod is None or not pod.is_terminal:
            return ""
        why = findings_of(pod).trouble
        if pod.status.phase == "Failed" and not why:
            why = f"The exporter pod has failed: {pod.status.reason} {pod.status.message}".rstrip(
                ": "
            )
        return why

    @property
    def retry_left(self) -> timedelta:
        """How long to wait before a pod is tried again."""
        return retry_left(self.retry_at, self.at)

    @property
    def look_again_in(self) -> timedelta:
        """When time alone changes something."""
        waits = [expires_at(self.export) - self.at]
        if self.source.volumes or self.source.lacking:
            waits.append(LOOK_AGAIN)
        if self.source.hindrance is not None and not self.source.is_empty:
            waits.append(LOOK_AGAIN)
        if self.retry_left:
            waits.append(self.retry_left)
        return max(min(waits), timedelta(milliseconds=10))
