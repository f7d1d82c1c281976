"""Scenarios that run twice, on a server and in qdrant-client's local mode: whatever they note must be the same.

A scenario is a function of a client and of a `Notes`. It may be told of a sync or of an async client: it calls both in the
same way, through a `Driver`.
"""

import asyncio
import contextlib
import functools
import inspect

from qdrant_client import AsyncQdrantClient, QdrantClient

TOLERANCE = 1e-4
TIMEOUT_SECONDS = 60
SHOWN_ANSWERS = 10
# What the two sides number on their own.
OWN_NUMBERS = ("version", "operation_id")


class Driver:
    """A client whose methods answer at once, those that are coroutines too. Which ones answered is kept in `called`."""

    def __init__(self, client, called=None):
        self._client, self._called = client, called if called is not None else set()
        self._loop = asyncio.new_event_loop() if isinstance(client, AsyncQdrantClient) else None

    def __getattr__(self, name):
        member = getattr(self._client, name)
        if not callable(member):
            return member

        @functools.wraps(member)
        def call(*arguments, **named):
            answer = member(*arguments, **named)
            if inspect.isawaitable(answer):
                answer = self._loop.run_until_complete(answer)
            self._called.add(name)
            return answer

        return call

    def gather(self, calls):
        """Answers of calls (a method's name and its arguments): all at once by an async client, else one by one."""
        if self._loop is None:
            return [getattr(self, name)(*arguments, **named) for name, arguments, named in calls]

        async def all_of_them():
            return await asyncio.gather(*(getattr(self._client, name)(*arguments, **named) for name, arguments, named in calls))

        self._called.update(name for name, _, _ in calls)
        return self._loop.run_until_complete(all_of_them())

    def stop(self):
        if self._loop is None:
            self._client.close()
        else:
            self._loop.run_until_complete(self._client.close())
            self._loop.close()


def address_of(client):
    """The URL that a client of a server was made with; None in local mode."""
    return client.init_options.get("url")


@contextlib.contextmanager
def driven(kind, url, called=None):
    """A client of that class, of the server at `url`, or of a new local mode when that is None."""
    where = {"url": url, "timeout": TIMEOUT_SECONDS} if url else {"location": ":memory:"}
    driver = Driver(kind(**where), called)
    try:
        yield driver
    finally:
        driver.stop()


def plain(value):
    """An answer as values that can be compared."""
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(exclude_none=True))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in OWN_NUMBERS}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def same(a, b):
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b) <= TOLERANCE * max(1, abs(a))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def hits_agree(ours, theirs, measure="score"):
    """Of hits that are equally near either may come first, or be the last one shown."""
    if len(ours) != len(theirs) or not all(same(a.get(measure), b.get(measure)) for a, b in zip(ours, theirs)):
        return False
    if not ours:
        return True
    last = ours[-1].get(measure)
    by_id = {hit["id"]: hit for hit in theirs}
    return all(hit["id"] in by_id and same(hit, by_id[hit["id"]]) for hit in ours if not same(hit.get(measure), last))


class Failed:
    """In the place of an answer: an error where there should be none. It is like no answer."""

    def __init__(self, error):
        self._text = f"{type(error).__name__}: {' '.join(str(error).split())}"

    def __eq__(self, other):
        return False

    def __repr__(self):
        return self._text


class Notes:
    """What a scenario saw, in order."""

    def __init__(self):
        self.seen = []

    def _add(self, name, rule, answer):
        """Of a call that fails the error is noted, and the scenario goes on."""
        if callable(answer):
            try:
                answer = answer()
            except Exception as error:  # clients have errors of many kinds
                self.seen.append((name, same, Failed(error)))
                return
        self.seen.append((name, rule, plain(answer)))

    def __call__(self, name, answer):
        """An answer, or a call that gives it."""
        self._add(name, same, answer)

    def hits(self, name, hits):
        """Hits with `id` and `score`, best first, or a call that gives them."""
        self._add(name, hits_agree, hits)

    def set(self, name, answers):
        """Answers whose order means nothing."""
        self._add(name, same, sorted(plain(list(answers)), key=repr))

    def refused(self, name, call):
        """Whether a call is an error; what it says is each side's own."""
        try:
            call()
        except Exception as error:  # the two sides have errors of many kinds
            if "not supported yet" in str(error):
                raise
            self(name, "refused")
        else:
            self(name, "answered")

    def agree(self, others):
        """How many answers were noted; all must be as in `others`."""
        assert self.seen, "the scenario noted nothing"
        wrong = [(name, ours, theirs) for (name, _, ours), (_, rule, theirs) in zip(self.seen, others.seen, strict=True)
                 if isinstance(ours, Failed) or not rule(ours, theirs)]
        shown = [f"{name}\nhere  {ours!r}\nlocal {theirs!r}" for name, ours, theirs in wrong[:SHOWN_ANSWERS]]
        assert not wrong, f"{len(wrong)} of {len(self.seen)} answers differ: " + "\n".join(shown)
        return f"{len(self.seen)} answers"


def twin(scenario, kind=QdrantClient, called=None):
    """The check that a scenario sees the same with a client of that class of a server as in local mode."""

    @functools.wraps(scenario)
    def check(client):
        ours, theirs = Notes(), Notes()
        with driven(kind, None) as driver:
            scenario(driver, theirs)
        with driven(kind, address_of(client), called) as driver:
            scenario(driver, ours)
        return ours.agree(theirs)

    return check


def alone(scenario, kind=QdrantClient, called=None):
    """The check that a scenario, which asserts for itself, holds on a server."""

    @functools.wraps(scenario)
    def check(client):
        with driven(kind, address_of(client), called) as driver:
            return scenario(driver)

    return check
