"""The part of LauncherService that asks the guest's agent. Translates and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager

from podvisor.launcher.v1 import launcher_pb2 as pb
from podvisor_common.rpc.errors import DeadlineExceeded

from podvisor_launcher.lifecycle.freezing import Freezing
from podvisor_launcher.lifecycle.guest_questions import GuestQuestions
from podvisor_launcher.virt.errors import AgentTimedOut, LibvirtFailed

# By which a handler knows that the calls are there.
FEATURE = "guest-agent"


class GuestAgentCalls:
    """The methods are documented in launcher.proto. All raise typed errors, which the server's interceptor knows."""

    def __init__(self, questions: GuestQuestions, freezing: Freezing) -> None:
        self._questions = questions
        self._freezing = freezing

    async def info(self) -> pb.GetGuestInfoResponse:
        """GetGuestInfo."""
        with _deadlines():
            return pb.GetGuestInfoResponse(info=await self._questions.info())

    async def users(self) -> pb.ListGuestUsersResponse:
        """ListGuestUsers."""
        with _deadlines():
            return pb.ListGuestUsersResponse(users=await self._questions.users())

    async def filesystems(self) -> pb.ListGuestFilesystemsResponse:
        """ListGuestFilesystems."""
        with _deadlines():
            found = await self._questions.filesystems()
            return pb.ListGuestFilesystemsResponse(filesystems=found)

    async def freeze(self, request: pb.FreezeGuestRequest) -> pb.FreezeGuestResponse:
        """FreezeGuest."""
        with _deadlines():
            await self._freezing.freeze(request.thaw_after_s)
        return pb.FreezeGuestResponse()

    async def thaw(self) -> pb.ThawGuestResponse:
        """ThawGuest."""
        with _deadlines():
            await self._freezing.thaw()
        return pb.ThawGuestResponse()


@contextmanager
def _deadlines() -> Iterator[None]:
    """What has no answer yet is no refusal, and a disk that is full no bug."""
    try:
        yield
    except AgentTimedOut as error:
        raise DeadlineExceeded(str(error), reason=error.reason) from error
    except OSError as error:
        raise LibvirtFailed(f"The freeze cannot be noted: {error.strerror}.") from error
