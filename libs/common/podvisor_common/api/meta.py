"""Object metadata, conditions and time stamps shared by all kinds."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from podvisor_common.api.base import ApiStruct, doc


class TypeMeta(ApiStruct, frozen=True):
    """What kind of object something is, before it is known how to read the rest of it."""

    api_version: str = ""
    kind: str = ""


class OwnerReference(ApiStruct, frozen=True):
    """The object that owns another: when it goes, the owned one is collected."""

    api_version: Annotated[str, doc("API version of the owner.")] = ""
    kind: Annotated[str, doc("Kind of the owner.")] = ""
    name: Annotated[str, doc("Name of the owner, in the same namespace.")] = ""
    uid: Annotated[str, doc("UID of the owner.")] = ""
    controller: Annotated[bool, doc("The owner manages this object.")] = False
    block_owner_deletion: Annotated[
        bool, doc("A foreground deletion of the owner waits for this object.")
    ] = False


class ObjectMeta(ApiStruct, frozen=True):
    """Metadata of an object. Times are RFC 3339 text, exactly as the API server wrote them."""

    name: Annotated[str, doc("Name, unique in the namespace.")] = ""
    generate_name: Annotated[str, doc("Prefix of a name that the API server completes.")] = ""
    namespace: Annotated[str, doc("Namespace of the object.")] = ""
    uid: Annotated[str, doc("Identity of the object in time and space.")] = ""
    resource_version: Annotated[str, doc("Opaque version of the stored object.")] = ""
    generation: Annotated[int, doc("Counts the changes of the specification.")] = 0
    creation_timestamp: Annotated[str | None, doc("When the object was created.")] = None
    deletion_timestamp: Annotated[
        str | None, doc("When deletion was asked for, plus the grace period.")
    ] = None
    deletion_grace_period_seconds: Annotated[
        int | None, doc("Grace period of the deletion, in seconds.")
    ] = None
    labels: Annotated[dict[str, str] | None, doc("Labels, for selection.")] = None
    annotations: Annotated[dict[str, str] | None, doc("Annotations, not for selection.")] = None
    finalizers: Annotated[tuple[str, ...] | None, doc("What must be done before it can go.")] = None
    owner_references: Annotated[
        tuple[OwnerReference, ...] | None, doc("Objects owning this one.")
    ] = None

    @property
    def is_being_deleted(self) -> bool:
        """Deletion was asked for."""
        return self.deletion_timestamp is not None

    def label(self, key: str) -> str | None:
        """The value of a label, None when it is not set."""
        return (self.labels or {}).get(key)

    def annotation(self, key: str) -> str | None:
        """The value of an annotation, None when it is not set."""
        return (self.annotations or {}).get(key)

    def controller_reference(self) -> OwnerReference | None:
        """The owner that manages this object, if any."""
        # A loop: with thousands of pods in a list, generators are what the step that takes it over spends its time on.
        for owner in self.owner_references or ():
            if owner.controller:
                return owner
        return None


class TypedLocalObjectReference(ApiStruct, frozen=True):
    """An object of some kind in the same namespace."""

    kind: Annotated[str, doc("Kind of the object.")]
    name: Annotated[str, doc("Name of the object.", minLength=1, maxLength=253)]
    api_group: Annotated[
        str | None, doc("API group of the kind, without a version.", nullable=True)
    ] = None


class ListMeta(ApiStruct, frozen=True):
    """Metadata of a list answer."""

    resource_version: str = ""
    continue_: str = ""
    remaining_item_count: int | None = None


class Condition(ApiStruct, frozen=True):
    """One aspect of an object's state."""

    type: Annotated[str, doc("Name of the condition.")]
    status: Annotated[str, doc("Whether it holds: True, False or Unknown.")]
    reason: Annotated[str, doc("Why, as one CamelCase word.")] = ""
    message: Annotated[str, doc("Why, as a sentence for a person.")] = ""
    last_transition_time: Annotated[
        str | None, doc("When `status` changed last.", format="date-time", nullable=True)
    ] = None
    last_probe_time: Annotated[
        str | None, doc("When the condition was looked at last.", format="date-time", nullable=True)
    ] = None

    @property
    def is_true(self) -> bool:
        """The condition holds."""
        return self.status == "True"


Conditions = Annotated[
    list[Condition] | None,
    doc(
        "Aspects of the state, one of each type.",
        x_kubernetes_list_type="map",
        x_kubernetes_list_map_keys=["type"],
    ),
]
"""The conditions of an object that podvisor defines."""


def find_condition(conditions: Sequence[Condition] | None, type_: str) -> Condition | None:
    """The condition of that type, None when there is none."""
    return next((c for c in conditions or () if c.type == type_), None)


def renewed_condition(
    known: Sequence[Condition] | None,
    at: datetime,
    type_: str,
    reason: str,
    message: str = "",
    *,
    status: str,
) -> Condition:
    """A condition as of `at`, of an object that said what is `known` until then: while the status stays, so does the time since when."""
    old = find_condition(known, type_)
    since = old.last_transition_time if old is not None and old.status == status else None
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=since or format_time(at),
    )


def now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """RFC 3339 in whole seconds (metav1.Time), for example `2026-01-02T03:04:05Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(moment: datetime) -> str:
    """RFC 3339 with six decimals (metav1.MicroTime), for leases and events."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """The moment an RFC 3339 text names; ValueError when it is not one."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time without a zone: {text!r}")
    return moment.astimezone(UTC)
