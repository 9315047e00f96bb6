"""What can be wrong with a specification."""

from podvisor_common.errors import Terminal


class SpecRefused(Terminal):
    """The specification cannot become a machine. The message names the field, for a person."""

    reason = "InvalidSpec"


class LauncherTooOld(SpecRefused):
    """The launcher in the pod is of a release that knows less than the specification asks for."""

    reason = "LauncherIncompatible"
