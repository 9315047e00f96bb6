"""Log lines as a collector reads them, and the metrics port as the kubelet and Prometheus see it."""

import asyncio
import json
import logging
from collections.abc import Iterator

import aiohttp
import pytest
import structlog
from podvisor_common.http.server import serve_http
from podvisor_common.obs.logging import configure_logging, set_log_level
from podvisor_common.obs.metrics import Health, new_registry, observability_app
from prometheus_client import Counter


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_lines_of_both_worlds_look_alike(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("virt-test", "info")
    structlog.contextvars.bind_contextvars(vmi="default/myvm")
    structlog.stdlib.get_logger("ours").info("guest started", start_ms=412)
    logging.getLogger("theirs").warning("careful %s", "now", extra={"port": 8443})
    structlog.stdlib.get_logger("ours").debug("not shown")
    ours, theirs = lines(capsys.readouterr().err)
    assert ours["event"] == "guest started"
    assert ours["start_ms"] == 412
    assert theirs["event"] == "careful now"
    assert theirs["port"] == 8443
    for line in (ours, theirs):
        assert line["service"] == "virt-test"
        assert line["vmi"] == "default/myvm"
        assert str(line["timestamp"]).endswith("Z")
    assert (ours["level"], theirs["level"]) == ("info", "warning")


def test_a_traceback_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("virt-test")
    try:
        raise KeyError("x")
    except KeyError as error:
        structlog.stdlib.get_logger().error("failed", exc_info=error)
    (line,) = lines(capsys.readouterr().err)
    assert "KeyError: 'x'" in str(line["exception"])


async def test_context_is_per_task(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("virt-test")

    async def work(name: str) -> None:
        structlog.contextvars.bind_contextvars(vmi=name)
        await asyncio.sleep(0)
        structlog.stdlib.get_logger().info("work")

    await asyncio.gather(work("a"), work("b"))
    assert [line["vmi"] for line in lines(capsys.readouterr().err)] == ["a", "b"]


def test_the_level_can_change_while_loggers_are_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("virt-test")
    logger = structlog.stdlib.get_logger("ours")
    logger.debug("before")
    set_log_level("debug")
    logger.debug("while")
    set_log_level("INFO")
    logger.debug("after")
    assert [line["event"] for line in lines(capsys.readouterr().err)] == ["while"]


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="chatty"):
        configure_logging("virt-test", "chatty")
    with pytest.raises(ValueError, match="chatty"):
        set_log_level("chatty")


async def test_probes_and_metrics() -> None:
    registry, health = new_registry(), Health()
    Counter("podvisor_test", "A test.", registry=registry).inc()
    missing: str | None = "no certificate yet"
    health.add_readiness("certificate", lambda: missing)
    async with (
        serve_http(observability_app(registry, health), host="127.0.0.1", port=0) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        async with client.get("/healthz") as reply:
            assert reply.status == 200
        async with client.get("/readyz") as reply:
            assert (reply.status, await reply.text()) == (503, "certificate: no certificate yet\n")
        missing = None
        async with client.get("/readyz") as reply:
            assert reply.status == 200
        async with client.get("/metrics") as reply:
            text = await reply.text()
        assert "podvisor_test_total 1.0" in text
        assert "process_resident_memory_bytes" in text
