"""Why something of an instance is not as it should be, as its condition says it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the instance does not come up or get a volume: a CamelCase reason and a sentence a person can act on."""

    reason: str
    message: str
