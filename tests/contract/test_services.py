"""What the contracts promise beyond what buf can check: every method is implemented, every report can be told apart."""

import pytest
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from podvisor.domain.v1 import domain_pb2
from podvisor.handler.v1 import handler_pb2
from podvisor.launcher.v1 import launcher_pb2
from podvisor_handler.rpc.service import HandlerServicer
from podvisor_launcher.rpc.servicer import LauncherServicer

CONTRACTS: list[tuple[FileDescriptor, type]] = [
    (handler_pb2.DESCRIPTOR, HandlerServicer),
    (launcher_pb2.DESCRIPTOR, LauncherServicer),
]


def _services(contract: FileDescriptor) -> list[ServiceDescriptor]:
    return list(contract.services_by_name.values())


@pytest.mark.parametrize(
    ("contract", "servicer"), CONTRACTS, ids=[file.package for file, _ in CONTRACTS]
)
def test_every_method_is_implemented(contract: FileDescriptor, servicer: type) -> None:
    """No declared method falls through to the generated class, which answers UNIMPLEMENTED."""
    methods = [method.name for service in _services(contract) for method in service.methods]
    assert methods
    generated = servicer.__mro__[-2]  # what all servicers of the service come from
    missing = [n for n in methods if getattr(servicer, n) is getattr(generated, n)]
    assert missing == []


@pytest.mark.parametrize(
    "contract", [domain_pb2.DESCRIPTOR, handler_pb2.DESCRIPTOR, launcher_pb2.DESCRIPTOR],
    ids=lambda file: file.package,
)  # fmt: skip
def test_nothing_meaningful_is_zero(contract: FileDescriptor) -> None:
    """An enum's zero is what an older peer did not say, so it never means anything."""
    enums = list(contract.enum_types_by_name.values())
    assert all(enum.values[0].name.endswith("_UNSPECIFIED") for enum in enums)
