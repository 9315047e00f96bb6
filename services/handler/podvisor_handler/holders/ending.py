"""Ends the process that holds a volume.

It is killed, not asked: one that is stopped or was started by an older release ends as well, and nothing that could be said to
it has to be believed. In a pod that is not being deleted after all it is started again, with the volume mounted all the time.
"""

import structlog
from podvisor_common.errors import Retryable

from podvisor_handler.holders.plan import EndHolder
from podvisor_handler.launchers.endpoint import HOLDER_SOCKET_NAME, untrusted_open_endpoint
from podvisor_handler.launchers.remains import has_process

_log = structlog.get_logger(__name__)


class GuestMayRun(Retryable):
    """A process is left of a pod whose guest may have the volume."""


def end_holder(pods_directory: str, order: EndHolder) -> None:
    """Carry out `order`. It blocks: it may read all of /proc.

    Raises GuestMayRun, and as untrusted_open_endpoint() when nobody holds the volume, or somebody else listens.
    """
    for uid in order.once_ended:
        if has_process(uid):
            raise GuestMayRun(f"pod {uid} has not ended")
    with untrusted_open_endpoint(pods_directory, order.holder, HOLDER_SOCKET_NAME) as endpoint:
        endpoint.process.kill()
    _log.info("volume's holder ended", pod_uid=order.holder)
