"""Retries: a hub that is busy or gone is asked again, as often as that makes sense, and then given up in one line."""

import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hub_server import Fault
from hub_users import COMMIT, DESCRIBED, KEPT, MEGABYTE, NOBODY, WEIGHTS, User, arrived
from outlier_features.sources.retry import TRIES, TRIES_WITHOUT_HUB

pytestmark = pytest.mark.slow


# A busy hub


def test_a_wait_that_the_hub_orders_is_kept_and_said(user: User, llama: Path) -> None:
    user.publish(llama)
    user.hub.faults = [Fault("429", "GET .*config.json$", retry_after=0.4)]
    before = time.monotonic()
    ended = user.fetch()
    assert ended.lines == ["org/model@aaaaaaaaaaaa: status 429; trying again in 0.4 s"]
    assert time.monotonic() - before > 0.4
    assert arrived(user, llama)


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"Retry-After": formatdate(0, usegmt=True)}, "0.0 s"),
        ({"RateLimit": '"resolvers";r=0;t=1', "RateLimit-Policy": '"fixed window";"resolvers";q=3000;w=300'}, "1.0 s"),
        ({"RateLimit": '"resolvers";r=9;t=90', "Retry-After": "soon"}, "0.0 s"),
    ],
    ids=["date", "rate limit", "neither"],
)
def test_a_wait_may_be_a_date_or_the_end_of_a_rate_limit(user: User, large: Path, headers: Any, waits: str) -> None:
    user.publish(large)
    user.hub.faults = [Fault("429", "GET .*config.json$", headers=headers)]
    assert user.fetch().lines == [f"org/model@aaaaaaaaaaaa: status 429; trying again in {waits}"]
    assert arrived(user, large)


def test_a_hub_that_is_busy_for_ever_is_given_up_after_all_tries(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.faults = [Fault("429", WEIGHTS, times=99, retry_after=0)]
    ended = user.fetch()
    assert ended.error == f"org/model@aaaaaaaaaaaa: cannot be downloaded (status 429; {TRIES} tries); {KEPT}"
    assert len(user.hub.seen(WEIGHTS)) == TRIES
    assert not user.output.exists()
    assert len(user.kept) == len(DESCRIBED)


def test_a_hub_that_is_down_for_a_moment_is_asked_again(user: User, llama: Path) -> None:
    user.publish(llama)
    user.hub.faults = [Fault("503", "/api/models/", times=3), Fault("503", WEIGHTS, times=2)]
    ended = user.fetch()
    assert [line.partition(";")[0] for line in ended.lines] == (
        [f"org/model@{COMMIT}: status 503"] * 3 + ["org/model@aaaaaaaaaaaa: status 503"] * 2
    )
    assert arrived(user, llama)
    assert (len(user.hub.seen("/api/")), len(user.hub.seen(WEIGHTS))) == (4, 5)


# Broken connections


def test_a_hub_that_nobody_answers_for_is_given_up_after_two_tries(user: User) -> None:
    ended = user.fetch(HF_ENDPOINT=NOBODY)
    told = f"org/model@{COMMIT}: [Errno 111] Connection refused; trying again in 0.0 s"
    assert ended.lines[:-1] == [told] * (TRIES_WITHOUT_HUB - 1)
    told = f"cannot be downloaded ([Errno 111] Connection refused; {TRIES_WITHOUT_HUB} tries)"
    assert ended.error == f"org/model@{COMMIT}: {told}; {KEPT}"


def test_a_storage_that_nobody_answers_for_is_given_up_after_all_tries(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.storage = NOBODY
    told = f"cannot be downloaded ([Errno 111] Connection refused; {TRIES} tries)"
    assert user.fetch().error == f"org/model@aaaaaaaaaaaa: {told}; {KEPT}"
    assert user.asked(WEIGHTS) == ["model.safetensors"] * TRIES


def test_a_hub_that_closes_every_connection_is_given_up_after_all_tries(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.faults = [Fault("refuse", "GET", times=99)]
    assert f"; {TRIES} tries); {KEPT}" in user.fetch().error
    assert len(user.hub.requests) == TRIES
    assert list(user.results.iterdir()) == []


def test_an_outage_in_the_middle_of_a_download_is_outlasted(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.faults = [Fault("cut", WEIGHTS), Fault("refuse", WEIGHTS, times=TRIES - 2)]
    assert user.fetch().status == 0
    assert user.ranges() == [None] + [f"bytes={2 * MEGABYTE}-"] * (TRIES - 1)
    assert arrived(user, large)
