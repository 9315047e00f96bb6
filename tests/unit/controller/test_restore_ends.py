"""What is left when a restore fails, is deleted or is torn away."""

import pytest
from podvisor_common.kube.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    RESTORES,
    VOLUME_SNAPSHOTS,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers

from tests.unit.controller.restores import BACK, RestoreUser
from tests.unit.kube.fake_apiserver import Refuse


async def test_a_snapshot_of_a_volume_that_is_gone_fails_the_restore_and_frees_the_machine(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    restorer.server.is_forbidden = lambda request: (
        request.method == "POST" and request.path.endswith("/persistentvolumeclaims")
    )
    await restorer.restore()
    await restorer.until_reason("Progressing", "The PersistentVolumeClaim cannot be created")
    assert restorer.is_locked
    [one] = restorer.snapshots.volume_snapshots
    restorer.server.remove(VOLUME_SNAPSHOTS, ObjectKey("shop", one["metadata"]["name"]))
    await restorer.until_reason("Failure", "missing volumeSnapshot")
    await restorer.server.until(lambda: not restorer.is_locked)
    assert restorer.claim_of("data")["metadata"]["name"] == "data"


async def test_a_restore_of_a_snapshot_that_has_lost_a_volume_fails_with_what_is_missing(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    [one] = restorer.snapshots.volume_snapshots
    name = one["metadata"]["name"]
    restorer.server.remove(VOLUME_SNAPSHOTS, ObjectKey("shop", name))
    await restorer.server.until(lambda: restorer.snapshots.status.get("readyToUse") is False)
    await restorer.restore(targetReadinessPolicy="WaitEventually")
    await restorer.until_reason("Failure", f"VolumeSnapshots ({name}) missing")
    assert not restorer.is_locked
    assert restorer.claims == ["data"]


@pytest.mark.parametrize(
    ("collection", "kind"),
    [("persistentvolumeclaims", "PersistentVolumeClaim"), ("virtualmachines", "VirtualMachine")],
)
async def test_a_restore_whose_claims_or_target_are_not_valid_fails_and_leaves_no_claims(
    collection: str, kind: str, restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    restorer.server.refuse("POST", f"/{collection}", Refuse(422, "Invalid", "metadata.labels: no"))
    await restorer.restore("other")
    await restorer.until_reason("Failure", f"The {kind} cannot be created: metadata.labels: no")
    await restorer.server.until(lambda: restorer.claims == ["data"])
    assert restorer.machine("other") == {}


async def test_what_a_policy_refuses_is_waited_for(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    refusal = Refuse(400, "BadRequest", "not on Sundays")
    restorer.server.refuse("POST", "/persistentvolumeclaims", refusal)
    await restorer.restore()
    await restorer.until_reason("Progressing", "not on Sundays")
    restorer.server.put(PERSISTENT_VOLUME_CLAIMS, restorer.claim("data") or {})
    await restorer.until_complete()


async def test_what_a_restore_made_goes_with_it_while_the_machine_has_not_got_it(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    restorer.provisioner.works = False
    await restorer.restore()
    await restorer.server.until(lambda: len(restorer.claims) == 2)
    await restorer.delete()
    await restorer.server.until(lambda: restorer.body is None)
    assert restorer.claims == ["data"]
    assert not restorer.is_locked


async def test_a_claim_goes_with_its_machine_even_if_the_restore_is_deleted_before_it_says_so(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    restorer.server.is_forbidden = lambda request: (
        request.method == "PATCH" and "/persistentvolumeclaims/" in request.path
    )
    await restorer.restore("twin")
    await restorer.until_reason("Progressing", "The PersistentVolumeClaim cannot be changed")
    await restorer.delete()
    restorer.server.is_forbidden = lambda _: False
    await restorer.server.until(lambda: restorer.body is None)
    [owner] = restorer.claim_of("data", "twin")["metadata"]["ownerReferences"]
    assert owner["uid"] == restorer.machine("twin")["metadata"]["uid"]


async def test_what_the_machine_has_got_stays_when_the_restore_goes(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    await restorer.restore()
    await restorer.until_complete()
    await restorer.delete()
    await restorer.server.until(lambda: restorer.body is None)
    assert restorer.claim_of("data")["metadata"]["name"].startswith("restore-")


async def test_the_machine_of_a_restore_that_was_torn_away_is_free(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    restorer.provisioner.works = False
    await restorer.restore()
    await restorer.server.until(lambda: restorer.is_locked)
    restorer.server.remove(RESTORES, BACK)
    await restorer.server.until(lambda: not restorer.is_locked)
