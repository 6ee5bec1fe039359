"""What the description of the API cannot say in JSON Schema, said to whoever generates requests from it; and who asks."""

import atexit
import itertools
import os
import re
import urllib.request
from collections import deque
from datetime import datetime, timezone
from hashlib import sha256
from json import dumps, loads

import schemathesis

USER = "schemathesis"
PUBLISHER = "publisher"
TOKENS = {"user": os.environ.get("USER_TOKEN", ""), "publisher": os.environ.get("PUBLISHER_TOKEN", "")}
API_KEY = os.environ.get("API_KEY", "")
URL = os.environ["BELLHOP_URL"]


def digest(value):
    return sha256(dumps(value, default=str).encode(errors="replace")).digest()


@schemathesis.auth(refresh_interval=None)
class Caller:
    """Publishers by a token or by a key; now and then nobody, who is to be refused. The request decides, so that it can be repeated."""

    def get(self, case, context):
        security = context.operation.definition.raw.get("security", [])
        schemes = {name for one in security for name in one}
        turn = digest([case.path_parameters, case.query, case.body])[0]
        if not schemes or turn % 20 == 19:
            return {}
        if "apiKey" in schemes and API_KEY and turn % 2:
            return {"X-API-Key": API_KEY}
        kind = "publisher" if "apiKey" in schemes else "user"
        return {"Authorization": f"Bearer {TOKENS[kind]}"}

    def set(self, case, data, context):
        case.headers.update(data)


def issued_cursor():
    """The cursor of a page that has another after it."""

    def ask(method, path):
        request = urllib.request.Request(URL + path, method=method, headers={"Authorization": f"Bearer {TOKENS['user']}"})
        with urllib.request.urlopen(request, timeout=10) as response:
            return loads(response.read())

    for _ in range(2):
        ask("POST", "/api/notifications/test")
    return ask("GET", "/api/notifications?limit=1")["nextCursor"]


CURSOR = issued_cursor() if TOKENS["user"] else None


def in_the_future(text):
    """The same time of a later year: a schema has no clock."""
    try:
        time = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
    except ValueError:
        return text
    if time.tzinfo is None or time > datetime.now(timezone.utc):
        return text
    return f"{2100 + time.year % 100}{text[4:]}" if text[4:10] != "-02-29" else f"2104{text[4:]}"


def whole(value):
    """7.0 is an integer of JSON Schema; its decimal spelling is not one of Bellhop's."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def one_spelling(users):
    """7 and "7" are one user, who is to be named once; to JSON Schema they are two items."""
    kept = []
    for user in users:
        spelled = [str(other) for other in kept if {type(other), type(user)} == {str, int}]
        if str(user) not in spelled:
            kept.append(user)
    return kept


def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def fits(data):
    """Whether it is small and flat enough: JSON Schema counts neither bytes nor levels."""
    return len(dumps(data, ensure_ascii=False).encode(errors="replace")) <= 8192 and depth(data) <= 8


def as_long(text, limit):
    """CR LF is one character: a text that is too long for a schema, which counts two, is made too long for Bellhop."""
    return text + "*" * text.count("\r\n") if len(text) > limit else text


def obey(draft):
    for name, limit in (("title", 200), ("message", 4096)):
        if isinstance(draft.get(name), str):
            draft[name] = as_long(draft[name], limit)
    if isinstance(draft.get("data"), dict) and not fits(draft["data"]):
        draft["data"] = {}
    if isinstance(draft.get("expiresAt"), str):
        draft["expiresAt"] = in_the_future(draft["expiresAt"])
    if "userId" in draft:
        draft["userId"] = whole(draft["userId"])
    if isinstance(draft.get("userIds"), list):
        draft["userIds"] = one_spelling(map(whole, draft["userIds"]))


LIVING = deque(maxlen=50)
TURNS = itertools.count()
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def go_to_a_living_one(case):
    """Ids cannot be guessed, so every other one that has the form of an id is that of a notification.

    Not where requests follow from each other: what is deleted there has to be the one that is asked for later.
    """
    path = case.path_parameters or {}
    is_fuzzing = case.meta is not None and case.meta.phase.name.value == "fuzzing"
    is_good = re.fullmatch(UUID, str(path.get("id"))) and re.fullmatch("[A-Za-z0-9._~@:-]{1,128}", str(path.get("userId", USER)))
    if is_fuzzing and is_good and LIVING and next(TURNS) % 2:
        path["id"] = LIVING[next(TURNS) % len(LIVING)]
        if "userId" in path:
            path["userId"] = USER


def note_a_living_one(case, response):
    if case.operation.path == "/api/notifications/test" and response.status_code == 201:
        LIVING.append(response.json()["id"])


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    if isinstance(body, dict):
        obey(body)
        for draft in body.get("notifications") or [] if isinstance(body.get("notifications"), list) else []:
            if isinstance(draft, dict):
                obey(draft)
    # A key is of one body, however often that is sent.
    key = case.headers.get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[!-~]{1,255}", key):
        case.headers["Idempotency-Key"] = digest([key, body]).hex()
    go_to_a_living_one(case)
    # Only what was issued is a cursor, so each that has the form of one is.
    if isinstance(case.query, dict) and re.fullmatch("[A-Za-z0-9_-]{22}", str(case.query.get("cursor", ""))):
        case.query["cursor"] = CURSOR
    # Whoever is disconnected needs a new token, and this run goes on with those that it has.
    if context.operation.path.endswith("/disconnect") and case.path_parameters.get("userId") in (USER, PUBLISHER):
        case.path_parameters["userId"] = "another"


ANSWERS = {"requests": 0, "server errors": 0}


@schemathesis.hook
def after_call(context, case, response):
    note_a_living_one(case, response)
    ANSWERS["requests"] += 1
    ANSWERS["server errors"] += response.status_code >= 500


@atexit.register
def tell():
    with open(os.environ["ANSWERS"], "w", encoding="utf-8") as file:
        file.writelines(f"{name}: {number}\n" for name, number in ANSWERS.items())
