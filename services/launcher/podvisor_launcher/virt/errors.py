"""What libvirt can answer, as types. Callers switch on these; libvirt's codes are known only here.

Must not let a text decide: only (code, domain) pairs do.
"""

from enum import Enum

import libvirt
from podvisor_common.errors import Retryable, Terminal


class LibvirtUnreachable(Retryable):
    """No connection, or no answer in time. Says nothing about the guest."""

    reason = "LibvirtUnreachable"


class DomainRejected(Terminal):
    """libvirt refused the domain's description. The text holds its own words."""

    reason = "DomainRejected"


class DomainStartFailed(Retryable):
    """libvirt accepted the domain and could not start it. The text holds its own words."""

    reason = "StartFailed"


class DomainMissing(Terminal):
    """libvirt knows no such domain, or not as a running one."""

    reason = "DomainNotRunning"


class LibvirtFailed(Retryable):
    """libvirt did not do what it was asked, for a reason that has no type of its own."""

    reason = "LibvirtFailed"


class AgentError(Exception):
    """The agent in the guest did not do what it was asked. What the text repeats of the agent's own words is cut."""

    reason = "GuestAgentFailed"


class AgentNotConnected(AgentError, Terminal):
    """No agent has opened the channel."""

    reason = "GuestAgentNotConnected"


class AgentCommandUnsupported(AgentError, Terminal):
    """The agent does not know the command, or it is switched off in the guest."""

    reason = "GuestAgentCommandUnsupported"


class AgentFailed(AgentError, Terminal):
    """The agent has answered that it cannot, or with what is no answer; or what it answered has not come."""

    reason = "GuestAgentFailed"


class AgentRefused(AgentFailed):
    """The agent has answered that it cannot, and has not done it. Of another AgentFailed that is not known."""


class AgentTimedOut(AgentError, Retryable):
    """The agent has not answered in time. Whether it has done what it was asked is not known."""

    reason = "GuestAgentTimedOut"


class AgentBusy(AgentError, Retryable):
    """Too many questions wait for the agent."""

    reason = "GuestAgentBusy"


class During(Enum):
    """What was asked of libvirt; the same code means different things to different requests."""

    DEFINE = "define"
    START = "start"
    OTHER = "other"


_CONNECTION_CODES = {
    libvirt.VIR_ERR_INTERNAL_ERROR,
    libvirt.VIR_ERR_SYSTEM_ERROR,
    libvirt.VIR_ERR_RPC,
    libvirt.VIR_ERR_NO_CONNECT,
}
_CONNECTION_DOMAINS = {libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_STREAMS}
_GONE_CODES = {libvirt.VIR_ERR_INVALID_CONN, libvirt.VIR_ERR_NO_CONNECT}

_REJECTION_CODES = {
    libvirt.VIR_ERR_XML_ERROR,
    libvirt.VIR_ERR_XML_DETAIL,
    libvirt.VIR_ERR_XML_INVALID_SCHEMA,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_INVALID_ARG,
    libvirt.VIR_ERR_OS_TYPE,
    libvirt.VIR_ERR_NO_SUPPORT,
}


def translate(error: libvirt.libvirtError, during: During) -> Retryable | Terminal:
    """The typed error that `error` stands for when it was raised `during` that request."""
    code, domain = error.get_error_code(), error.get_error_domain()
    words = error.get_error_message() or "libvirt gave no reason"
    if code in _GONE_CODES or (code in _CONNECTION_CODES and domain in _CONNECTION_DOMAINS):
        return LibvirtUnreachable(words)
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return DomainMissing(words)
    if during is not During.OTHER and code in _REJECTION_CODES:
        return DomainRejected(words)
    if during is During.START:
        return DomainStartFailed(words)
    if code == libvirt.VIR_ERR_OPERATION_INVALID:
        return DomainMissing(words)  # the domain exists and is not running
    return LibvirtFailed(words)
