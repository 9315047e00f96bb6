"""What the statuses of all sets have, whatever their members are."""

from typing import Annotated

from podvisor_common.api.base import ApiStruct, doc
from podvisor_common.api.meta import Conditions


class SetStatus(ApiStruct, frozen=True):
    """What is known of a set, besides `replicas`: which of its members count, each kind says for itself."""

    ready_replicas: Annotated[
        int | None, doc("Those of the replicas that are ready.", format="int32")
    ] = None
    label_selector: Annotated[
        str, doc("The selector as text, for whoever scales the set by what its members use.")
    ] = ""
    conditions: Conditions = None
