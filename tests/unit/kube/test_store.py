"""The store of objects that an informer keeps: its indexes, and what is older than what it has."""

from podvisor_common.api.meta import ObjectMeta
from podvisor_common.kube.store import Store

from tests.unit.kube.informer_world import Pod, Spec


def stored(name: str, node: str, version: int, uid: str = "u") -> Pod:
    meta = ObjectMeta(name=name, namespace="shop", uid=uid, resource_version=str(version))
    return Pod(meta, Spec(node))


def test_store_keeps_its_indexes_in_step() -> None:
    store: Store[Pod] = Store({"node": lambda pod: [pod.spec.node_name]})
    store.replace([stored("a", "n1", 1), stored("b", "n1", 2)])
    store.apply(stored("a", "n2", 3))
    assert [pod.metadata.name for pod in store.by_index("node", "n1")] == ["b"]
    store.delete(stored("b", "n1", 4))
    assert store.by_index("node", "n1") == []
    store.replace([stored("c", "n2", 5)])
    assert [pod.metadata.name for pod in store.by_index("node", "n2")] == ["c"]


def test_a_list_that_brings_nothing_new_leaves_the_indexes_alone() -> None:
    """With thousands of objects, indexing them all again would stop the loop."""
    indexed: list[str] = []

    def nodes(pod: Pod) -> list[str]:
        indexed.append(pod.metadata.name)
        return [pod.spec.node_name]

    store: Store[Pod] = Store({"node": nodes})
    store.replace([stored("a", "n1", 1), stored("b", "n1", 2), stored("c", "n1", 3)])
    indexed.clear()
    changes = store.replace([stored("a", "n1", 1), stored("b", "n2", 4), stored("d", "n2", 5)])
    assert sorted(change.key.name for change in changes) == ["b", "c", "d"]
    assert "a" not in indexed
    assert [pod.metadata.name for pod in store.by_index("node", "n1")] == ["a"]
    assert [pod.metadata.name for pod in store.by_index("node", "n2")] == ["b", "d"]


def test_store_ignores_what_is_older_than_what_it_has() -> None:
    store: Store[Pod] = Store({})
    store.replace([stored("a", "n2", 10, uid="second")])
    assert store.apply(stored("a", "n1", 9)) is None
    assert store.delete(stored("a", "n1", 9, uid="first")) is None
    assert store.delete(stored("a", "n2", 11, uid="second")) is not None
    assert len(store) == 0
