"""Names of new members of a set. Pure.

Invariant: a set's names are one fixed sequence, so that whoever makes the next member under the same circumstances gives it the
same name: what is made twice, after an answer that was lost or by the next leader, is one object, for the second finds it there.
"""

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterator

# Without vowels, and what looks like another: no words come about.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
# The name is the value of a label of the launcher pod.
_MAX_LENGTH = 63


def names_of(base: str, uid: str) -> Iterator[str]:
    """The names of the set of that UID, without end: `base` and five characters."""
    stem = base[: _MAX_LENGTH - _SUFFIX_LENGTH]
    return (stem + _suffix(uid, number) for number in itertools.count())


def choose_names(
    candidates: Iterator[str],
    count: int,
    *,
    unanswered: Collection[str],
    is_taken: Callable[[str], bool],
) -> list[str]:
    """`count` names to create under: first those that were asked for and may exist already, then the first free ones."""
    again = sorted(unanswered)[:count]
    fresh = (name for name in candidates if name not in unanswered and not is_taken(name))
    return again + list(itertools.islice(fresh, count - len(again)))


def _suffix(uid: str, number: int) -> str:
    digest = int.from_bytes(hashlib.sha256(f"{uid}/{number}".encode()).digest()[:8], "big")
    characters = []
    for _ in range(_SUFFIX_LENGTH):
        digest, place = divmod(digest, len(_ALPHABET))
        characters.append(_ALPHABET[place])
    return "".join(characters)
