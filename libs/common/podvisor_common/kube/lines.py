"""Splitting a byte stream into lines of bounded length. No I/O."""

from collections.abc import Iterator

# etcd refuses objects above 1.5 MiB, but a line holds the object's JSON, which can be several times its stored form.
MAX_LINE_BYTES = 16 * 1024 * 1024


class LineSplitter:
    """Collects chunks and gives out whole lines, without their newline; a rest without one is never given out."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._max_line_bytes = max_line_bytes

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that `chunk` completes. OSError when a line outgrows the limit: the stream is unusable."""
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._rest.append(line)
            whole = b"".join(self._rest)
            self._rest.clear()
            self._rest_bytes = 0
            if whole:
                yield whole
        if rest:
            self._rest.append(rest)
            self._rest_bytes += len(rest)
        if self._rest_bytes > self._max_line_bytes:
            raise OSError(f"a line of the stream is longer than {self._max_line_bytes} bytes")
