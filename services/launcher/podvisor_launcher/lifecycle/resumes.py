"""How often a guest that a disk's error had stopped is let go on."""

_PAUSE_MS = 1_000  # doubled up to the limit
_PAUSE_MAX_MS = 60_000  # a guest that runs for longer than this begins anew
_SETTLED_MS = 500  # one whose disk is no better stops again within a few milliseconds


class Resumes:
    """Counts them, and says when the next may be. Times are milliseconds of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self.next_ms = 0
        self.settled_ms = 0  # from then on a guest that runs can be said to

    def count(self, now_ms: int) -> None:
        """The guest is let go on now."""
        is_new = now_ms >= self.next_ms + _PAUSE_MAX_MS
        self.in_a_row = 1 if is_new else self.in_a_row + 1
        self.next_ms = now_ms + min(_PAUSE_MS << min(self.in_a_row - 1, 10), _PAUSE_MAX_MS)
        self.settled_ms = now_ms + _SETTLED_MS
