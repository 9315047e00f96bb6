"""What the web server says of its troubles, without what was in the request: a token may be there, and names of files are content."""

import logging
import traceback

_SERVER = logging.getLogger("aiohttp.server")


def quieten() -> None:
    """Have the web server log no words of an error, which quote the request, but its kind and place. Again changes nothing."""
    _SERVER.addFilter(_without_words)


def _without_words(record: logging.LogRecord) -> bool:
    if isinstance(record.exc_info, tuple):
        kind, _, where = record.exc_info
        frames = traceback.extract_tb(where)
        record.kind = kind.__name__ if kind is not None else ""
        record.place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    record.exc_info, record.exc_text = None, None
    return True
