"""Exports as people use them, with curl and kubectl alone: what comes out is what a guest or a pod has written, for who has the token."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.support.cluster import ROOT, Cluster, Json
from tests.support.disks import claimed, with_disk, write
from tests.support.machine import Machine, condition, gone, vm
from tests.support.process import end
from tests.support.storage import CSI_IMMEDIATE, VolumeMode, checksum, claim, local_volume, user_of

MIB = 1 << 20
SIZE = 64 * MIB
HEADER = "x-kubevirt-export-token"

pytestmark = pytest.mark.timeout(180)


def export_of(kind: str, name: str, **spec: Any) -> Json:
    """A VirtualMachineExport with the name `copy`."""
    group = {} if kind == "PersistentVolumeClaim" else {"apiGroup": "kubevirt.io"}
    return {
        "apiVersion": "export.kubevirt.io/v1",
        "kind": "VirtualMachineExport",
        "metadata": {"name": "copy"},
        "spec": {"source": {**group, "kind": kind, "name": name}, **spec},
    }


def is_ready(state: Json | None) -> bool:
    return bool((state or {}).get("status", {}).get("phase") == "Ready")


def says(reason: str) -> Callable[[Json | None], bool]:
    return lambda state: condition(state, "Ready").get("reason") == reason


async def ready(cluster: Cluster) -> Json:
    """The links of the export, once it is served."""
    state = await cluster.until("vmexport", "copy", is_ready, within_s=60, what="Ready")
    assert state is not None
    links: Json = state["status"]["links"]["internal"]
    return links


async def token_of(cluster: Cluster) -> str:
    export = await cluster.get("vmexport", "copy")
    assert export is not None
    secret = await cluster.get("secret", export["status"]["tokenSecretRef"])
    assert secret is not None
    return base64.b64decode(secret["data"]["token"]).decode()


def url_of(links: Json, form: str, volume: str = "data") -> str:
    [formats] = [one["formats"] for one in links["volumes"] if one["name"] == volume]
    [url] = [one["url"] for one in formats if one["format"] == form]
    return str(url)


class Curl:
    """curl in a pod of the namespace, with the authority and, unless told otherwise, the token."""

    def __init__(self, cluster: Cluster, pod: str, cert: str, token: str) -> None:
        self._cluster = cluster
        self._pod = pod
        self._cert = cert
        self._token = token

    async def sh(self, script: str) -> str:
        """What a shell script prints in which `get URL` downloads."""
        # A Service refuses connections until the node has heard of its first pod.
        patience = "--retry 10 --retry-delay 1 --retry-connrefused"
        get = f"curl -sS --fail --location {patience} --cacert /tmp/ca.pem -H '{HEADER}: {self._token}'"
        lines = [
            "cat >/tmp/ca.pem <<'END'",
            self._cert,
            "END",
            "set -eo pipefail",
            f'get() {{ {get} "$@"; }}',
            script,
            "",
        ]
        done = await self._cluster.kubectl(
            "exec", "-i", self._pod, "--", "bash", "-s", stdin="\n".join(lines), timeout_s=90
        )
        return done.stdout

    async def status(self, url: str, token: str | None) -> str:
        """The status of an answer to who shows another token, or none."""
        header = "" if token is None else f"-H '{HEADER}: {token}'"
        ask = f"curl -sS -o /dev/null -w '%{{http_code}}' --cacert /tmp/ca.pem {header} {url}"
        return await self.sh(ask)


async def curl(cluster: Cluster, pod: str, links: Json) -> Curl:
    return Curl(cluster, pod, links["cert"], await token_of(cluster))


async def nothing_is_left(cluster: Cluster) -> None:
    """All that was made for the export goes with it."""
    await cluster.until("vmexport", "copy", gone, within_s=10, what="gone")
    for kind in ("pod", "service"):
        await cluster.until(kind, "virt-export-copy", gone, within_s=30, what="gone")
    names = [one["metadata"]["name"] for one in await cluster.all("secrets")]
    of_pods = [name for name in names if name.startswith("virt-export")]
    for name in ("export-token-copy", *of_pods):
        await cluster.until("secret", name, gone, within_s=30, what="gone")


@pytest.mark.parametrize("mode", ["Filesystem", "Block"])
async def test_a_disk_that_a_guest_has_written(
    cluster: Cluster, tools_pod: str, mode: VolumeMode
) -> None:
    """Raw, in parts and compressed it has the same checksum as the claim; a wrong token gets nothing; nothing is left afterwards."""
    async with local_volume(cluster, "data", SIZE, mode):
        await cluster.apply(with_disk(vm("author"), "data", claimed("data")))
        author = Machine(cluster, "author")
        await author.console_shows("author login:")
        await write(author, "data", "precious")
        await cluster.kubectl("delete", "vm", "author", "--timeout=30s")
        expected = await checksum(cluster, "data")

        await cluster.apply(export_of("PersistentVolumeClaim", "data"))
        links = await ready(cluster)
        client = await curl(cluster, tools_pod, links)
        raw, compressed = url_of(links, "raw"), url_of(links, "gzip")
        assert (await client.sh(f"get {raw} | sha256sum")).split()[0] == expected
        assert (await client.sh(f"get {compressed} | gunzip | sha256sum")).split()[0] == expected
        parts = f"(get -r 0-{MIB - 1} {raw}; get -r {MIB}- {raw}) | sha256sum"
        assert (await client.sh(parts)).split()[0] == expected
        # Hardly anything was written: hardly anything is transferred.
        assert int(await client.sh(f"get {compressed} | wc -c")) < 4 * MIB
        for wrong in (None, "wrong"):
            assert await client.status(raw, wrong) == "401"

        await cluster.kubectl("delete", "vmexport", "copy", "--timeout=30s")
        await nothing_is_left(cluster)
        assert await checksum(cluster, "data") == expected


async def test_files_that_a_pod_has_written(cluster: Cluster, tools_pod: str) -> None:
    """They are served as a directory and as an archive, and a link that leads elsewhere is not followed."""
    async with local_volume(cluster, "data", SIZE):
        script = "mkdir /claim/sub; echo hello >/claim/sub/file; ln -s /token/token /claim/key"
        await cluster.apply(user_of("writer", "data", "Filesystem", "bash", "-ec", script))
        await cluster.until(
            "pod",
            "writer",
            lambda state: (state or {}).get("status", {}).get("phase") == "Succeeded",
            within_s=60,
            what="Succeeded",
        )
        await cluster.apply(export_of("PersistentVolumeClaim", "data"))
        links = await ready(cluster)
        client = await curl(cluster, tools_pod, links)
        root, archive = url_of(links, "dir"), url_of(links, "tar.gz")
        assert 'href="./sub/"' in await client.sh(f"get {root}")
        assert await client.sh(f"get {root}/sub/file") == "hello\n"
        assert await client.status(f"{root}/key", await token_of(cluster)) == "404"
        listed = await client.sh(f"get {archive} | tar tzf - | sort")
        assert listed.split() == ["./", "./key", "./sub/", "./sub/file"]
        assert await client.sh(f"get {archive} | tar xzOf - ./sub/file") == "hello\n"


async def test_a_machine_that_runs_and_one_that_waits(cluster: Cluster) -> None:
    """While the machine runs it is not exported, and while it is exported it does not start; both say why, and go on by themselves."""
    async with local_volume(cluster, "data", SIZE):
        await cluster.apply(with_disk(vm("web"), "data", claimed("data")))
        web = Machine(cluster, "web")
        await web.console_shows("web login:")
        await cluster.apply(export_of("VirtualMachine", "web"))
        shown = await cluster.until(
            "vmexport", "copy", says("InUse"), within_s=20, what="Ready is False: InUse"
        )
        assert condition(shown, "Ready")["message"].endswith("/web is running")
        assert await cluster.get("pod", "virt-export-copy") is None

        await set_run_strategy(cluster, "web", "Halted")
        links = await ready(cluster)
        assert [one["name"] for one in links["volumes"]] == ["data"]
        assert [one["type"] for one in links["manifests"]] == ["all", "auth-header-secret"]

        await set_run_strategy(cluster, "web", "Always")
        shown = await cluster.until(
            "vmi",
            "web",
            lambda state: condition(state, "Synchronized").get("reason") == "VolumeInUse",
            within_s=20,
            what="Synchronized is False: VolumeInUse",
        )
        message = condition(shown, "Synchronized")["message"]
        assert f"VirtualMachineExport {cluster.namespace}/copy" in message, message
        assert is_ready(await cluster.get("vmexport", "copy"))
        await cluster.kubectl("delete", "vmexport", "copy", "--timeout=30s")
        await web.console_shows("web login:")
        await nothing_is_left(cluster)


async def test_the_end_of_its_time_takes_everything(cluster: Cluster) -> None:
    """Also what a user's own token was for; the user's Secret stays."""
    await cluster.kubectl("create", "secret", "generic", "mine", "--from-literal=token=sesame")
    async with local_volume(cluster, "data", SIZE):
        export = export_of(
            "PersistentVolumeClaim", "data", tokenSecretRef="mine", ttlDuration="30s"
        )
        await cluster.apply(export)
        await ready(cluster)
        assert await token_of(cluster) == "sesame"
        await cluster.until("vmexport", "copy", gone, within_s=45, what="gone")
        await nothing_is_left(cluster)
        assert await cluster.get("secret", "mine") is not None


async def test_from_outside_of_the_cluster(cluster: Cluster) -> None:
    """By kubectl port-forward, under the name that the certificate has; the manifests make the machine elsewhere."""
    async with local_volume(cluster, "data", SIZE):
        await cluster.apply(with_disk(vm("web", run_strategy="Halted"), "data", claimed("data")))
        # What makes the claim be bound, and the image in it.
        await set_run_strategy(cluster, "web", "Always")
        await Machine(cluster, "web").running()
        await set_run_strategy(cluster, "web", "Halted")
        await cluster.until("vmi", "web", gone, within_s=40, what="gone")
        await cluster.apply(export_of("VirtualMachine", "web"))
        links = await ready(cluster)
        headers = {HEADER: await token_of(cluster), "Accept": "application/json"}
        host = f"virt-export-copy.{cluster.namespace}.svc"
        context = ssl.create_default_context(cadata=links["cert"])
        async with forwarded(cluster) as port, aiohttp.ClientSession(headers=headers) as session:
            url = f"https://127.0.0.1:{port}/internal/manifests/all"
            async with session.get(url, ssl=context, server_hostname=host) as answer:
                assert answer.status == 200
                items = (await answer.json())["items"]
            assert [one["kind"] for one in items] == ["ConfigMap", "VirtualMachine", "DataVolume"]
            source = items[2]["spec"]["source"]["http"]
            assert source["url"] == url_of(links, "gzip")
            url = f"https://127.0.0.1:{port}/volumes/data/disk.img"
            async with session.head(url, ssl=context, server_hostname=host) as answer:
                assert 0.8 * SIZE < int(answer.headers["Content-Length"]) < SIZE


@pytest.mark.long
async def test_what_a_snapshot_has_kept(
    cluster: Cluster, tools_pod: str, storage_classes: None
) -> None:
    """What a guest had written before is exported beside the machine, which runs and writes on; the claim for it goes with the export."""
    await cluster.apply(claim("data", "64Mi", storage_class=CSI_IMMEDIATE, mode="Block"))
    await cluster.apply(with_disk(vm("author"), "data", claimed("data")))
    author = Machine(cluster, "author")
    await author.console_shows("author login:")
    await write(author, "data", "before")
    source = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "author"}
    await cluster.apply(
        {
            "apiVersion": "snapshot.kubevirt.io/v1beta1",
            "kind": "VirtualMachineSnapshot",
            "metadata": {"name": "kept"},
            "spec": {"source": source},
        }
    )
    await cluster.until(
        "vmsnapshot",
        "kept",
        lambda state: bool((state or {}).get("status", {}).get("readyToUse")),
        within_s=40,
        what="ready to use",
    )
    await write(author, "data", "behind")
    export = export_of("VirtualMachineSnapshot", "kept")
    export["spec"]["source"]["apiGroup"] = "snapshot.kubevirt.io"
    await cluster.apply(export)
    links = await ready(cluster)
    client = await curl(cluster, tools_pod, links)
    raw = url_of(links, "raw")
    assert raw.endswith("/volumes/copy-data/disk.img")
    # As tests.support.disks.write() has it: a MiB from the beginning.
    assert await client.sh(f"get -r {MIB}-{MIB + 5} {raw}") == "before"
    await cluster.kubectl("delete", "vmexport", "copy", "--timeout=30s")
    await nothing_is_left(cluster)
    await cluster.until("pvc", "copy-data", gone, within_s=30, what="gone")


async def test_a_pod_of_the_profile_restricted(cluster: Cluster) -> None:
    """A namespace that enforces it has exports as well."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    await cluster.kubectl("label", "namespace", cluster.namespace, label)
    async with local_volume(cluster, "data", SIZE):
        await cluster.apply(export_of("PersistentVolumeClaim", "data"))
        await ready(cluster)
        await cluster.kubectl("delete", "vmexport", "copy", "--timeout=30s")


async def set_run_strategy(cluster: Cluster, name: str, strategy: str) -> None:
    patch = f'{{"spec":{{"runStrategy":"{strategy}"}}}}'
    await cluster.kubectl("patch", "vm", name, "--type=merge", "-p", patch)


@asynccontextmanager
async def forwarded(cluster: Cluster) -> AsyncIterator[int]:
    """A port here behind which the Service of the export is."""
    process = await asyncio.create_subprocess_exec(
        str(ROOT / "dev/kubectl"), "-n", cluster.namespace, "port-forward", "service/virt-export-copy", ":443",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            line = (await process.stdout.readline()).decode()
        # "Forwarding from 127.0.0.1:40123 -> 8443"
        yield int(line.split("->")[0].rpartition(":")[2])
    finally:
        await end(process)
