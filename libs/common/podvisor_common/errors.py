"""The two fates of an error. Every typed error of podvisor is one or the other.

Callers that own a retry loop switch on these and on nothing else; a text is never inspected.
"""


class Retryable(Exception):
    """Trying again can help without anybody changing anything."""


class Terminal(Exception):
    """Trying again cannot help: somebody must change the request or the world first."""
