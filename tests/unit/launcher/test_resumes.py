"""A guest that a full disk stops again and again is let go on at growing intervals."""

from podvisor_launcher.lifecycle.resumes import Resumes


def test_the_pause_doubles_up_to_a_minute() -> None:
    resumes, now_ms, pauses = Resumes(), 5_000, []
    for _ in range(9):
        resumes.count(now_ms)
        assert now_ms < resumes.settled_ms < resumes.next_ms
        pauses.append(resumes.next_ms - now_ms)
        now_ms = resumes.next_ms
    assert pauses == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]
    assert resumes.in_a_row == 9


def test_a_guest_that_ran_for_long_begins_anew() -> None:
    resumes = Resumes()
    for now_ms in (5_000, 6_000, 8_000 + 60_000 + 4_000):
        resumes.count(now_ms)
    assert resumes.in_a_row == 1
