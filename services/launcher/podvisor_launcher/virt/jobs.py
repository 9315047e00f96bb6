"""libvirt's jobs: of the calls that change a running domain, one at a time.

A call goes on in libvirt when the client that made it was killed. Its job is over when another has been had.
"""

import libvirt

# Nobody keeps anything there; to remove it changes nothing, and takes a job as every change does.
_NOWHERE = "urn:podvisor:nothing"
_NO_LONGER = {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID}


def wait_for_jobs(connection: libvirt.virConnect) -> None:
    """Return when each running domain has had no job for a moment. Takes as long as those jobs do. Raises libvirtError."""
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        while not _had_job(domain):
            pass


def _had_job(domain: libvirt.virDomain) -> bool:
    """Whether there was a job to be had; libvirt itself waits for so long as half a minute."""
    element, live = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
    try:
        domain.setMetadata(element, None, None, _NOWHERE, live)
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_LONGER:
            return True
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT:
            return False
        raise
    return True
