"""The webhooks' certificates: so short-lived that they are replaced all the time under load, expired, or of an authority that
nobody trusts. No call fails that need not; one that must says why, and it heals by itself."""

import asyncio
import base64
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from podvisor_common.tls.authority import CertificateAuthority

from tests.faults.admission import (
    forwarded,
    handshake,
    load_on_webhooks,
    looking_at_certificates,
    trusted_bundle,
)
from tests.faults.measured import Measured
from tests.faults.replicas import (
    CONTROLLER,
    CONTROLLER_PODS,
    INSTALL,
    all_are_ready,
    controller_pods,
)
from tests.support.cluster import Cluster
from tests.support.machine import Machine, vm

# The controllers look at what the API server trusts so often, or when a client refuses their certificate.
HEALED_S = 25.0
REFUSED = "a client refused the certificate of the webhooks"
LONG = pytest.mark.long


@asynccontextmanager
async def _certificates_that_live(leaf_s: int, authority_s: int) -> AsyncIterator[None]:
    """Both replicas are replaced, and make certificates for so long; replaced again after the body."""
    deployment = await INSTALL.get("deployment", "virt-controller")
    assert deployment is not None
    variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    names = ("CERTIFICATE_LIFE_S", "AUTHORITY_LIFE_S")
    before = [f"{one['name']}={one['value']}" for one in variables if one["name"] in names]
    assert len(before) == len(names)
    try:
        lives = (f"CERTIFICATE_LIFE_S={leaf_s}", f"AUTHORITY_LIFE_S={authority_s}")
        await INSTALL.kubectl("set", "env", CONTROLLER, *lives)
        await all_are_ready()
        yield
    finally:
        await INSTALL.kubectl("set", "env", CONTROLLER, *before)
        await all_are_ready()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("leaf_s", "authority_s", "held_s"),
    [
        pytest.param(20, 7776000, 30, id="20s"),
        pytest.param(120, 600, 600, id="2min", marks=LONG),
    ],
)
async def test_short_lived(
    cluster: Cluster, survivor: Machine, leaf_s: int, authority_s: int, held_s: int
) -> None:
    """Not one call fails, neither while certificates are replaced nor while replicas are."""
    bundle = await trusted_bundle()
    async with (
        load_on_webhooks(cluster, survivor) as load,
        _certificates_that_live(leaf_s, authority_s),
        looking_at_certificates() as shown,
    ):
        # The time is the subject: lives end in it.
        await asyncio.sleep(held_s)
        for replica in shown:
            assert replica.failures == [], replica
            assert replica.handshakes > held_s, replica
            # Each is replaced when half of its life is over, or a sixth later.
            assert len(replica.serials) >= held_s / leaf_s, replica
        assert authority_s > held_s or await trusted_bundle() != bundle
    assert load.failures == []
    assert load.calls > 5 * held_s, load


@asynccontextmanager
async def _said_by_a_controller(text: str) -> AsyncIterator[None]:
    """A controller logs a line with that text during the body, or soon after."""
    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    yield
    logs = await INSTALL.kubectl(
        "logs", "-l", CONTROLLER_PODS, f"--since-time={since}", "--tail=-1"
    )
    assert text in logs.stdout, logs.stdout


async def _accepted_again(cluster: Cluster, *, in_a_row: int = 6) -> list[str]:
    """Create, without consequences, until it is accepted several times in a row; what was said when it was not."""
    refusals: list[str] = []
    accepted = 0
    async with asyncio.timeout(HEALED_S):
        while accepted < in_a_row:
            done = await cluster.kubectl(
                "create", "--dry-run=server", "-f", "-", stdin=json.dumps(vm("dry")), check=False
            )
            accepted = accepted + 1 if done.exit_code == 0 else 0
            if done.exit_code != 0:
                refusals.append(done.stderr)
    return refusals


async def test_api_server_told_of_a_wrong_authority(cluster: Cluster, measured: Measured) -> None:
    """Somebody overwrites the bundle: a creation is refused with the reason, we log it, and the next one is accepted."""
    await all_are_ready()
    stranger = CertificateAuthority.create(
        "stranger", now=datetime.now(UTC), valid_for=timedelta(days=1)
    )
    bundle = base64.b64encode(stranger.certificate).decode()
    path = "/webhooks/0/clientConfig/caBundle"
    patch = json.dumps([{"op": "replace", "path": path, "value": bundle}])
    async with _said_by_a_controller(REFUSED):
        damaged_s = time.time()
        await cluster.kubectl(
            "patch", "mutatingwebhookconfiguration", "podvisor-mutating", "--type=json", "-p", patch
        )
        refusals = await _accepted_again(cluster)
    assert refusals, "the API server did not mind"
    assert all("certificate signed by unknown authority" in text for text in refusals), refusals
    measured.add(
        "wrong CA told to the API server, healed", time.time() - damaged_s, limit_s=HEALED_S
    )


async def _shows_a_trusted_certificate(pod: str) -> None:
    """Wait until a replica, which learns of another authority by itself, serves a certificate of it."""
    async with forwarded(pod) as port:
        while True:
            with contextlib.suppress(ssl.SSLCertVerificationError):
                await handshake(port, await trusted_bundle())
                return


async def test_expired_authority(cluster: Cluster, measured: Measured) -> None:
    """The authority in the Secret has expired: another one is made, told to the API server, and used by every replica."""
    await all_are_ready()
    long_ago = datetime.now(UTC) - timedelta(days=100)
    expired = CertificateAuthority.create(
        "expired", now=long_ago, valid_for=timedelta(days=90)
    ).pair
    data = {
        name: base64.b64encode(value).decode()
        for name, value in (("ca.crt", expired.certificate), ("ca.key", expired.key))
    }
    before = await trusted_bundle()
    async with _said_by_a_controller("certificate authority changed"):
        struck_s = time.time()
        patch = json.dumps(
            {"data": data | {"next.crt": None, "next.key": None, "previous.crt": None}}
        )
        await INSTALL.kubectl("patch", "secret", "podvisor-ca", "--type=merge", "-p", patch)
        await Cluster("default").until(
            "validatingwebhookconfiguration", "podvisor-validating",
            lambda state: base64.b64decode((state or {})["webhooks"][0]["clientConfig"]["caBundle"]).decode() != before,
            within_s=HEALED_S, what="another authority is trusted",
        )  # fmt: skip
        refusals = await _accepted_again(cluster)
    assert all("certificate" in text for text in refusals), refusals
    measured.add("expired CA in the Secret, healed", time.time() - struck_s, limit_s=2 * HEALED_S)
    async with asyncio.timeout(HEALED_S):
        for pod in await controller_pods():
            await _shows_a_trusted_certificate(pod)
