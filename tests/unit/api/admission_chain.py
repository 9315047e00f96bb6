"""What happens to a new object on its way into the API server: conversion, mutation, schema, validation, over HTTPS as it asks.

The API server's own part is modelled: names are checked, the schema of the version that the client wrote is applied by
jsonschema, and the webhooks get the object converted to v1. What the webhooks answer comes from the real ones.
"""

import base64
import copy
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import aiohttp
from jsonschema import Draft7Validator, FormatChecker
from podvisor_controller.webhooks import registration
from podvisor_controller.webhooks.defaults import ClusterDefaults
from podvisor_controller.webhooks.judges import webhooks_for

from tests.support.manifests.places import schema_of, written
from tests.unit.edge.webhook_session import asked_over_tls, nobody_evicts

Json = dict[str, Any]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_MUTATING = {
    "VirtualMachine": registration.VM_MUTATE,
    "VirtualMachineInstance": registration.VMI_MUTATE,
}
_VALIDATING = {
    "VirtualMachine": registration.VM_VALIDATE,
    "VirtualMachineInstance": registration.VMI_VALIDATE_CREATE,
}
_FORMATS = FormatChecker(())


@_FORMATS.checks("int32")
def _is_int32(value: object) -> bool:
    return not isinstance(value, int) or -(2**31) <= value < 2**31


@_FORMATS.checks("int64")
def _is_int64(value: object) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**63


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets: 201, or a code with the fields that are at fault."""

    code: int
    by: str
    fields: tuple[str, ...] = ()
    message: str = ""


@asynccontextmanager
async def served_webhooks() -> AsyncIterator[aiohttp.ClientSession]:
    """The real webhooks behind the real server, and a client that trusts it."""
    gates = frozenset({"HostDisk"})
    defaults = ClusterDefaults(cpu_request="100m", cpu_model="host-model", feature_gates=gates)
    webhooks = webhooks_for("kubevirt", lambda: defaults, nobody_evicts)
    async with asked_over_tls(webhooks) as session:
        yield session


class AdmissionChain:
    """Creates objects nowhere, and says how that would have ended."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def create(self, manifest: Json) -> Answer:
        """The answer to a client that creates the object."""
        written_version = manifest["apiVersion"]
        obj = copy.deepcopy(manifest)
        obj["metadata"] |= {"namespace": "shop", "uid": "u", "creationTimestamp": None}
        if not _NAME.fullmatch(obj["metadata"]["name"]):
            return Answer(422, "name", ("metadata.name",))
        v1 = await self._converted(obj, "kubevirt.io/v1")
        response = await self._ask(_MUTATING[obj["kind"]], v1, written_version)
        if not response["allowed"]:
            return _refusal("mutation", response)
        v1 = _patched(v1, response)
        stored = await self._converted(v1, written_version)
        refused = tuple(_schema_fields(stored))
        # An API server that has no schema yet, or an older one, asks just the same.
        v1 = await self._converted(stored, "kubevirt.io/v1")
        response = await self._ask(_VALIDATING[obj["kind"]], v1, written_version)
        if refused:
            return Answer(422, "schema", refused)
        return Answer(201, "") if response["allowed"] else _refusal("validation", response)

    async def replace(self, manifest: Json, old: Json) -> Answer:
        """The answer of the webhooks to a client that replaces a machine by what the schema lets through."""
        new, was = [await self._converted(one, "kubevirt.io/v1") for one in (manifest, old)]
        response = await self._ask(registration.VM_MUTATE, new, manifest["apiVersion"], was)
        if response["allowed"]:
            response = await self._ask(registration.VM_VALIDATE, new, manifest["apiVersion"], was)
        return Answer(200, "") if response["allowed"] else _refusal("validation", response)

    async def _converted(self, obj: Json, api_version: str) -> Json:
        """The object in a version, by the conversion webhook where one is needed."""
        if obj["apiVersion"] == api_version:
            return obj
        if obj["kind"] != "VirtualMachine":
            return obj | {"apiVersion": api_version}
        body = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "ConversionReview",
            "request": {"uid": "c", "desiredAPIVersion": api_version, "objects": [obj]},
        }
        async with self._session.post(registration.CONVERT, json=body) as reply:
            assert reply.status == 200, await reply.text()
            response = (await reply.json())["response"]
        assert response["result"]["status"] == "Success", response
        [converted] = response["convertedObjects"]
        return dict(converted)

    async def _ask(
        self, path: str, obj: Json, written_version: str, old: Json | None = None
    ) -> Json:
        body = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "a",
                "operation": "CREATE" if old is None else "UPDATE",
                "requestKind": {
                    "group": "kubevirt.io",
                    "version": written_version.rpartition("/")[2],
                    "kind": obj["kind"],
                },
                "userInfo": {"username": "me"},
                "object": obj,
                "oldObject": old,
            },
        }
        async with self._session.post(path, json=body) as reply:
            assert reply.status == 200, await reply.text()
            response: Json = (await reply.json())["response"]
        assert response["uid"] == "a"
        if not response["allowed"]:
            assert 400 <= response["status"]["code"] < 500, response
        return response


def _refusal(by: str, response: Json) -> Answer:
    status = response["status"]
    causes = status.get("details", {}).get("causes", [])
    fields = tuple(cause["field"] for cause in causes)
    return Answer(status["code"], by, fields, status["message"])


def _patched(obj: Json, response: Json) -> Json:
    """The object after a JSON patch of `add` and `replace`, the two that admission uses."""
    result = copy.deepcopy(obj)
    for operation in json.loads(base64.b64decode(response.get("patch", "W10="))):
        assert operation["op"] in ("add", "replace"), operation
        *parents, last = (
            key.replace("~1", "/").replace("~0", "~") for key in operation["path"].split("/")[1:]
        )
        target: Any = result
        for key in parents:
            target = target[int(key)] if isinstance(target, list) else target[key]
        if last == "-":
            target.append(operation["value"])
        elif isinstance(target, list):
            target[int(last)] = operation["value"]
        else:
            target[last] = operation["value"]
    return result


def _schema_fields(obj: Json) -> Iterator[str]:
    """The places that the schema of the object's kind and version refuses."""
    for error in _validator(obj["kind"], obj["apiVersion"]).iter_errors(obj):
        place = tuple(error.absolute_path)
        if error.validator == "required":
            missing = [name for name in error.validator_value if name not in error.instance]
            yield from (written((*place, name)) for name in missing)
        else:
            yield written(place)


@cache
def _validator(kind: str, api_version: str) -> Draft7Validator:
    schema = schema_of(kind, api_version.rpartition("/")[2])
    return Draft7Validator(_plain(schema), format_checker=_FORMATS)


def _plain(schema: Any) -> Any:
    """The schema in the words of JSON Schema, which says `nullable` by a second type."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    plain = {key: _plain(value) for key, value in schema.items()}
    if plain.get("nullable") is True:
        plain["type"] = [plain["type"], "null"]
    return plain
