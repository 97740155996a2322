import pytest

from webui.jobs.cancel import CancelToken, ImageSkipped, JobInterrupted


def test_a_fresh_token_lets_the_job_go_on() -> None:
    token = CancelToken()
    token.check()
    assert not token.interrupted


def test_an_interrupt_holds_for_every_later_check() -> None:
    token = CancelToken()
    token.interrupt()
    for _ in range(2):
        with pytest.raises(JobInterrupted):
            token.check()
    assert token.interrupted


def test_a_skip_leaves_one_image_only() -> None:
    token = CancelToken()
    token.skip()
    token.skip()
    with pytest.raises(ImageSkipped):
        token.check()
    token.check()


def test_an_interrupt_wins_over_a_skip() -> None:
    token = CancelToken()
    token.skip()
    token.interrupt()
    with pytest.raises(JobInterrupted):
        token.check()
