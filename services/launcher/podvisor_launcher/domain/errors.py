"""Why a machine cannot be built."""

from podvisor_common.errors import Terminal


class UnbuildableSpec(Terminal):
    """The specification asks for a machine that cannot exist. The text names the field."""

    reason = "InvalidSpec"
