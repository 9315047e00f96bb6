"""`python -m podvisor_controller.handlers`, between an API server and handlers on loopback."""

import pytest
from podvisor_common.kube.resources import PODS, SECRETS
from podvisor_common.tls.authority import CertificateAuthority
from podvisor_controller.handlers.__main__ import ask_all

from tests.unit.controller.conftest import SETTINGS
from tests.unit.edge.certificate_replicas import SECRET
from tests.unit.edge.handler_identities import Controllers, controllers
from tests.unit.edge.test_handler_pool import Cluster


def put_pod(made: Controllers, node: str, address: str) -> None:
    host, port = address.rsplit(":", 1)
    ports = [{"name": "rpc", "containerPort": int(port)}]
    labels = {"kubevirt.io": "virt-handler"}
    made.server.put(
        PODS,
        {
            "metadata": {"namespace": "kubevirt", "name": f"h-{node}", "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "virt-handler", "ports": ports}]},
            "status": {"phase": "Running", "podIP": host},
        },
    )


async def test_every_handler_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster()
    async with controllers() as made:
        authorities = made.certificates.published
        assert authorities is not None
        cluster.signer = CertificateAuthority(authorities.signing)
        async with cluster.handler("n1"), cluster.handler("n2"):
            for node, address in cluster.addresses.items():
                put_pod(made, node, address)
            capsys.readouterr()
            assert await ask_all(made.client, SETTINGS) == 0
            said = sorted(capsys.readouterr().out.splitlines())
            assert [line.split(", ")[0] for line in said] == ["n1: n1", "n2: n2"]
            put_pod(made, "n2", cluster.addresses["n1"])
            assert await ask_all(made.client, SETTINGS) == 1
            (bad,) = [one for one in capsys.readouterr().out.splitlines() if one[:3] == "n2:"]
            assert "Hostname Verification" in bad


async def test_nobody_to_ask(capsys: pytest.CaptureFixture[str]) -> None:
    async with controllers() as made:
        assert await ask_all(made.client, SETTINGS) == 2
        made.server.remove(SECRETS, SECRET)
        assert await ask_all(made.client, SETTINGS) == 2
    said = capsys.readouterr().err
    assert "there are no handlers" in said
    assert "the authority cannot be read: 404" in said
