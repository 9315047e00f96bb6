"""Two thousand bad manifests, and not one that gets in, breaks admission or is refused without saying where."""

import asyncio
import copy
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.support.manifests.bad import BadManifest, bad_manifests
from tests.support.manifests.contradictions import CONTRADICTIONS, Row, place
from tests.support.manifests.good import TEMPLATE, Good, good_manifests
from tests.support.manifests.places import holds, put, take, written
from tests.unit.api.admission_chain import AdmissionChain, Answer, served_webhooks

LOTS = 16
EXAMPLES_PER_LOT = 125

Send = Callable[..., Answer]


@pytest.fixture(scope="module")
def chain() -> Iterator[tuple[asyncio.Runner, AdmissionChain]]:
    """The webhooks behind a real server on a loop of their own: each example steps into it."""
    with asyncio.Runner() as runner:
        served = served_webhooks()
        yield runner, AdmissionChain(runner.run(served.__aenter__()))
        runner.run(served.__aexit__(None, None, None))


@pytest.fixture
def create(chain: tuple[asyncio.Runner, AdmissionChain]) -> Send:
    runner, admission = chain
    return lambda manifest: runner.run(admission.create(manifest))


@pytest.fixture
def replace(chain: tuple[asyncio.Runner, AdmissionChain]) -> Send:
    runner, admission = chain
    return lambda manifest, old: runner.run(admission.replace(manifest, old))


@pytest.mark.parametrize("good", good_manifests(), ids=lambda good: good.name)
def test_what_they_are_made_of_is_admitted(create: Send, good: Good) -> None:
    assert create(good.manifest) == Answer(201, "")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("lot", range(LOTS))
def test_bad_manifests_are_refused_with_a_path(create: Send, replace: Send, lot: int) -> None:
    sent = 0

    @seed(lot)
    @settings(
        max_examples=EXAMPLES_PER_LOT,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(bad_manifests())
    def refused(bad: BadManifest) -> None:
        nonlocal sent
        sent += 1
        answer = create(bad.manifest)
        assert 400 <= answer.code < 500, answer
        assert any(bad.is_named_by(field) for field in answer.fields), answer
        is_in_spec = all(place.startswith("spec") for place in bad.places)
        if answer.by == "validation" and bad.good.kind == "VirtualMachine" and is_in_spec:
            assert replace(bad.manifest, bad.good.manifest).fields == answer.fields

    refused()
    assert sent >= EXAMPLES_PER_LOT


@pytest.mark.parametrize("row", CONTRADICTIONS, ids=lambda row: row[0])
def test_contradictions_are_refused_where_they_are(create: Send, row: Row) -> None:
    [manifest] = [
        copy.deepcopy(good.manifest)
        for good in good_manifests()
        if good.name == "machine with everything"
    ]
    _, changes, pointed = row
    base = place(TEMPLATE)
    for text, value in changes.items():
        where = (*base, *place(text))
        if value is not None:
            put(manifest, where, value)
        elif holds(manifest, where):
            take(manifest, where)
    answer = create(manifest)
    assert 400 <= answer.code < 500
    places = [written((*base, *place(text))) for text in pointed]
    assert any(field.startswith(where) for field in answer.fields for where in places), answer
