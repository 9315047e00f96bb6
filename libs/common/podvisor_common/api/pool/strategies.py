"""How a pool names its machines, and which of them it deletes or restarts, in which order."""

from typing import Annotated

from podvisor_common.api.base import ApiStruct, doc
from podvisor_common.api.duration import MAX_LENGTH
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.placement import LabelSelector, NodeSelectorRequirement

_PRESERVATION = doc(
    "What stays of a machine that is deleted. `Disabled`: nothing of its own. `Offline`: its claims, which podvisor"
    " never deletes in any case. `Disabled` by default.",
    enum=list(names.StatePreservation),
)


class NameGeneration(ApiStruct, frozen=True):
    """Which names in the template get the index of the machine, as `-INDEX` at their end."""

    append_index_to_config_map_refs: Annotated[
        bool | None, doc("ConfigMaps of volumes, of which there are none yet.")
    ] = None
    append_index_to_secret_refs: Annotated[
        bool | None, doc("Secrets with user-data or network-config of cloud-init.")
    ] = None


class Selectors(ApiStruct, frozen=True):
    """Machines to choose from: those for which all that is given holds."""

    label_selector: Annotated[
        LabelSelector | None, doc("Requirements on the labels of the machine's template.")
    ] = None
    node_selector_requirement_matcher: Annotated[
        list[NodeSelectorRequirement] | None,
        doc("Requirements on the node selector of the machine's template."),
    ] = None


class SelectionPolicy(ApiStruct, frozen=True):
    """Which machines are chosen, and in which order."""

    sort_policy: Annotated[
        str,
        doc(
            "`AscendingOrder` and `DescendingOrder`: by index. `Newest` and `Oldest`: by age, those first. `Random`:"
            " in an order that tells nothing. `Random` by default.",
            enum=list(names.SortPolicy),
        ),
    ] = ""
    selectors: Annotated[
        Selectors | None, doc("Only these machines are chosen. Every one by default.")
    ] = None


class Unmanaged(ApiStruct, frozen=True):
    """Nothing is done."""


class OpportunisticScaleIn(ApiStruct, frozen=True):
    """Only machines that do not run are deleted."""

    state_preservation: Annotated[str, _PRESERVATION] = ""


class ProactiveScaleIn(ApiStruct, frozen=True):
    """Machines are deleted, whether they run or not."""

    selection_policy: Annotated[
        SelectionPolicy | None, doc("Which machines go first. Random ones by default.")
    ] = None
    state_preservation: Annotated[str, _PRESERVATION] = ""


class ScaleInStrategy(ApiStruct, frozen=True):
    """What is done when there are more machines than wanted: exactly one of these."""

    proactive: Annotated[
        ProactiveScaleIn | None, doc("Machines are deleted. This is the default.")
    ] = None
    opportunistic: Annotated[
        OpportunisticScaleIn | None, doc("Machines are deleted when they do not run.")
    ] = None
    unmanaged: Annotated[Unmanaged | None, doc("Nothing: users delete machines.")] = None


class OpportunisticUpdate(ApiStruct, frozen=True):
    """A machine gets the new template; its instance follows with its next start."""


class ProactiveUpdate(ApiStruct, frozen=True):
    """A machine gets the new template and is restarted."""

    selection_policy: Annotated[
        SelectionPolicy | None, doc("Which machines are restarted first. Random ones by default.")
    ] = None


class UpdateStrategy(ApiStruct, frozen=True):
    """What is done when the template changes: exactly one of these."""

    proactive: Annotated[
        ProactiveUpdate | None,
        doc("Machines get the new template and are restarted. This is the default."),
    ] = None
    opportunistic: Annotated[
        OpportunisticUpdate | None, doc("Machines get the new template and are left running.")
    ] = None
    unmanaged: Annotated[Unmanaged | None, doc("Nothing: only new machines have it.")] = None


class Autohealing(ApiStruct, frozen=True):
    """When a machine that does not start is deleted and made anew: when one of the two holds."""

    start_up_failure_threshold: Annotated[
        int | None,
        doc("How many starts in a row have failed. 3 by default.", format="int32", minimum=1),
    ] = None
    min_failing_to_start_duration: Annotated[
        str,
        doc(
            "How long its start has been held up, such as by an image, a node or a claim. `5m` by default.",
            maxLength=MAX_LENGTH,
        ),
    ] = ""
