"""Probes of a guest: by the network, as of any container, or by the guest's agent."""

from typing import Annotated

from podvisor_common.api.base import ApiStruct, doc


class HTTPHeader(ApiStruct, frozen=True):
    """A header of the request."""

    name: Annotated[str, doc("Name.")]
    value: Annotated[str, doc("Value.")]


class HTTPGetAction(ApiStruct, frozen=True):
    """A request by HTTP, which a status from 200 to 399 passes."""

    port: Annotated[int | str, doc("Port, a number.")]
    path: Annotated[str, doc("Path, with its query.")] = ""
    host: Annotated[str, doc("Host to ask. The address of the pod by default.")] = ""
    scheme: Annotated[str, doc("`HTTP` or `HTTPS`. `HTTP` by default.")] = ""
    http_headers: Annotated[
        list[HTTPHeader] | None, doc("Headers of the request.", maxItems=64)
    ] = None


class TCPSocketAction(ApiStruct, frozen=True):
    """A connection by TCP, which is made or not."""

    port: Annotated[int | str, doc("Port, a number.")]
    host: Annotated[str, doc("Host to connect to. The address of the pod by default.")] = ""


class ExecAction(ApiStruct, frozen=True):
    """A command that the agent runs in the guest, which an exit code of 0 passes."""

    command: Annotated[
        list[str] | None, doc("The program and its arguments; no shell.", maxItems=256)
    ] = None


class GuestAgentPing(ApiStruct, frozen=True):
    """The agent answers."""


class Probe(ApiStruct, frozen=True):
    """How often which of the following is tried: exactly one."""

    exec: Annotated[ExecAction | None, doc("A command in the guest.")] = None
    guest_agent_ping: Annotated[GuestAgentPing | None, doc("The agent in the guest.")] = None
    http_get: Annotated[HTTPGetAction | None, doc("A request by HTTP.")] = None
    tcp_socket: Annotated[TCPSocketAction | None, doc("A connection by TCP.")] = None
    initial_delay_seconds: Annotated[
        int, doc("Until the first try after the launcher's start.", format="int32")
    ] = 0
    timeout_seconds: Annotated[
        int, doc("How long a try may take. 1 by default.", format="int32")
    ] = 0
    period_seconds: Annotated[
        int, doc("From one try to the next. 10 by default.", format="int32")
    ] = 0
    success_threshold: Annotated[
        int, doc("Tries in a row that end a failure. 1 by default.", format="int32")
    ] = 0
    failure_threshold: Annotated[
        int, doc("Tries in a row that make a failure. 3 by default.", format="int32")
    ] = 0

    @property
    def asks_agent(self) -> bool:
        """It is made by the guest's agent."""
        return self.exec is not None or self.guest_agent_ping is not None
