"""Retry: a request to the hub is repeated while the hub is busy or the connection breaks."""

import email.utils
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

import httpx2
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import parse_ratelimit_headers
from tqdm import tqdm

from outlier_features.errors import SourceError

TRIES = 8
"""How often one request is made before its failure counts."""
TRIES_WITHOUT_HUB = 2
"""The same where nobody has answered at all."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 120.0
"""Seconds before the second try, doubled with each further one, where the hub does not name its own."""
LONGEST_ORDER = 3600.0
"""Seconds a hub may make us wait."""
PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses of a hub that is busy, not of a request that is wrong."""

Result = TypeVar("Result")


class Broken(Exception):
    """A download that ended before its time, or whose content is not what was promised."""


def retried(call: Callable[[], Result], where: str, advanced: Callable[[], int] | None = None) -> Result:
    """Return what `call` returns; wait and try again where its failure may pass, and say so.

    `advanced` tells how far the work has come, which a hub that answered has begun: whatever moved on begins to count
    anew. Raises SourceError, naming `where`, when patience is over or the failure is not one that passes.
    """
    tries = 0
    while True:
        before = advanced() if advanced else 0
        try:
            return call()
        except (HfHubHTTPError, httpx2.TransportError, Broken, ValueError) as error:
            response = getattr(error, "response", None)
            if response is not None and response.status_code not in PASSING:
                wrong = "HF_TOKEN" if response.status_code in (401, 403) else "the name"
                raise SourceError(f"{where}: the hub refused ({_reason(error)}); check {wrong}.") from error
            tries = 1 if advanced and advanced() > before else tries + 1
            has_no_hub = isinstance(error, httpx2.ConnectError) and not advanced
            if tries >= (TRIES_WITHOUT_HUB if has_no_hub else TRIES):
                raise SourceError(
                    f"{where}: cannot be downloaded ({_reason(error)}; {tries} tries); check the network and "
                    "HF_ENDPOINT, then run again: what has arrived is kept."
                ) from error
            wait = _wait(response, tries)
            tqdm.write(f"{where}: {_reason(error)}; trying again in {wait:.1f} s")  # on a line of its own
            time.sleep(wait)


def _wait(response: httpx2.Response | None, tries: int) -> float:
    """Return the seconds to wait: those the hub names, else doubled with each try and spread by a quarter."""
    ordered = _ordered(response.headers) if response is not None else None
    if ordered is not None:
        return min(max(0.0, ordered), LONGEST_ORDER)
    return min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tries - 1)) * random.uniform(1, 1.25)


def _ordered(headers: httpx2.Headers) -> float | None:
    """Return the seconds a hub asks for: Retry-After as seconds or a date, else until its rate limit begins anew."""
    value = headers.get("Retry-After", "")
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        limit = parse_ratelimit_headers(headers)
        return limit.reset_in_seconds if limit and not limit.remaining else None


def _reason(error: Exception) -> str:
    """Return what went wrong in a few words; no header of the request is ever part of them."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"status {response.status_code}"
    return str(error).strip().partition("\n")[0] or type(error).__name__
