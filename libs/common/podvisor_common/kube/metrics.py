"""Prometheus metrics of clients, informers, queues, controllers, leader election and the loop, under their customary names.

They live in prometheus_client's default registry. Labels are names from our own code, never names of objects.
"""

import asyncio

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

REQUESTS = Counter(
    "rest_client_requests", "Calls to the API server by method and status", ["method", "code"]
)
REQUEST_SECONDS = Histogram(
    "rest_client_request_duration_seconds",
    "Time until the API server's answer began",
    ["method"],
    buckets=_SECONDS,
)
INFORMER_LISTS = Counter("podvisor_informer_lists", "Full lists made", ["resource"])
INFORMER_FAILURES = Counter(
    "podvisor_informer_failures", "Lists and watches that failed, by reason", ["resource", "reason"]
)
INFORMER_UNDECODABLE = Counter(
    "podvisor_informer_undecodable", "Objects that did not fit their type", ["resource"]
)
INFORMER_OBJECTS = Gauge("podvisor_informer_objects", "Objects in the cache", ["resource"])
QUEUE_DEPTH = Gauge("workqueue_depth", "Keys waiting for a worker", ["name"])
QUEUE_ADDS = Counter("workqueue_adds", "Keys added", ["name"])
QUEUE_RETRIES = Counter("workqueue_retries", "Keys added again after a failure", ["name"])
QUEUE_SECONDS = Histogram(
    "workqueue_queue_duration_seconds", "Time a key waited", ["name"], buckets=_SECONDS
)
WORK_SECONDS = Histogram(
    "workqueue_work_duration_seconds", "Time a key was worked on", ["name"], buckets=_SECONDS
)
RECONCILES = Counter("podvisor_reconcile", "Reconciles by result", ["controller", "result"])
RECONCILE_ERRORS = Counter("podvisor_reconcile_errors", "Reconciles that failed", ["controller"])
RECONCILE_SECONDS = Histogram(
    "podvisor_reconcile_time_seconds", "Time of one reconcile", ["controller"], buckets=_SECONDS
)
ACTIVE_WORKERS = Gauge("podvisor_active_workers", "Workers reconciling", ["controller"])
LEADER = Gauge("leader_election_master_status", "1 while this process leads", ["name"])
TASKS = Gauge("podvisor_tasks", "asyncio tasks that have not ended")
EVENTS = Counter("podvisor_events", "Kubernetes events by what became of them", ["outcome"])


def observe_request(method: str, code: str, duration_s: float) -> None:
    """Count one call to the API server; `code` is its HTTP status or `<error>`."""
    REQUESTS.labels(method, code).inc()
    REQUEST_SECONDS.labels(method).observe(duration_s)


def _tasks() -> float:
    """Those of the loop that asks, which is a service's only one."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0.0  # no loop runs


TASKS.set_function(_tasks)
