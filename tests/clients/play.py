"""Plays scenario.json with the official Python client, in the form that is asked for (asyncio or threads); what the words of that file mean is in README.md."""
import asyncio
import contextlib
import json
import os
import re
import sys
import threading

import requests
import socketio

DEADLINE = 10  # seconds
WAYS = {"websocket": ["websocket"], "polling": ["polling"], "upgrade": ["polling", "websocket"]}
RECONNECT = {"reconnection_delay": 0.1, "reconnection_delay_max": 0.5, "randomization_factor": 0.05}


class Failure(Exception):
    """What was wanted, and what came instead."""


def brief(value):
    return json.dumps(value, ensure_ascii=False)[:400]


def ask(**question):
    """Asks the driver of the tests."""
    answer = requests.post(os.environ["CONTROL"], json=question, timeout=30)
    if answer.ok:
        return answer.json()
    raise Failure(f"the driver could not {question}: {answer.text}")


def same(one, other):
    """Equality of JSON, where true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


class Names:
    """What a scenario has learnt, by name. `$name` is its value where it is known, and takes what is there where it is not."""

    def __init__(self, known):
        self.known = known

    def fill(self, value):
        if isinstance(value, str):
            if re.fullmatch(r"\$\w+", value):
                return self.known[value[1:]]
            return re.sub(r"\$(\w+)", lambda name: self.known[name[1]], value)
        if isinstance(value, list):
            return [self.fill(one) for one in value]
        if isinstance(value, dict):
            return {key: self.fill(one) for key, one in value.items()}
        return value

    def fits(self, wanted, value):
        """Whether a value is as wanted: of an object what is named, anything else whole."""
        if isinstance(wanted, str) and re.fullmatch(r"\$\w+", wanted):
            return same(self.known.setdefault(wanted[1:], value), value)
        if isinstance(wanted, dict):
            return isinstance(value, dict) and all(key in value and self.fits(one, value[key]) for key, one in wanted.items())
        if isinstance(wanted, list):
            return isinstance(value, list) and len(wanted) == len(value) and all(map(self.fits, wanted, value))
        return same(wanted, value)


class Device:
    """One official client, and what it has heard and no step has taken yet: in order, for each first word of a name."""

    def __init__(self, name, url, transports, auth, resume):
        self.name, self.url, self.transports, self.auth, self.resume = name, url, transports, auth, resume
        self.heard, self.position, self.count, self.changed = {}, {}, None, threading.Condition()
        self.client = self.new_client()
        self.client.on("*", lambda event, payload=None: self.hear(event, payload))
        self.client.on("disconnect", lambda reason=None: self.hear("disconnect", reason))
        self.client.on("connect_error", self.refused)

    def credentials(self):
        return {**self.auth, **self.position} if self.resume else self.auth

    def refused(self, why):
        # A transport that fails is tried again, and told of as text; a refusal is for the scenario to hear.
        if isinstance(why, dict):
            self.hear("connect_error", why)

    def hear(self, event, payload):
        # A count that says what the one before it did may come, and need not.
        if event == "notification:unread-count":
            if payload["count"] == self.count:
                return
            self.count = payload["count"]
        elif event == "disconnect":
            self.count = None
        again = " again" if self.keep(event, payload) else ""
        with self.changed:
            self.heard.setdefault(event.split(":")[0], []).append((event + again, payload))
            self.changed.notify()

    def keep(self, event, payload):
        """Moves the position of a client that misses nothing; tells whether this is a change that it had."""
        payload = payload if isinstance(payload, dict) else {}
        last, seq, reason = self.position.get("lastSeq", -1), payload.get("seq"), payload.get("reason")
        change = event in ("notification:new", "notification:updated", "notification:deleted") or reason in ("read-all", "cleared")
        if reason == "reset":
            self.position["lastSeq"] = seq
        elif change or event == "notification:synced":
            self.position["lastSeq"] = max(last, seq)
        if "epoch" in payload:
            self.position["epoch"] = payload["epoch"]
        return change and seq <= last

    def open(self):
        self.start(self.client.connect, self.url, auth=self.credentials, transports=self.transports, wait_timeout=DEADLINE)

    def close(self):
        self.start(self.client.shutdown)

    def hears(self, names, event, *wanted):
        queue = self.heard.setdefault(event.split(":")[0], [])
        with self.changed:
            if not self.changed.wait_for(lambda: queue, DEADLINE):
                raise Failure(f"{self.name} waited {DEADLINE} s for {event} {brief(wanted)}")
            heard, payload = queue.pop(0)
        if heard != event or not all(names.fits(one, payload) for one in wanted):
            raise Failure(f"{self.name} heard {heard} {brief(payload)}, and {event} {brief(wanted)} was wanted")

    def reached(self):
        """Has its connection come to the transport that its options end at? This client upgrades before it connects."""
        if self.client.transport() != self.transports[-1]:
            raise Failure(f"{self.name} has come to {self.client.transport()}, and {self.transports[-1]} was wanted")


class Threads(Device):
    def new_client(self):
        return socketio.Client(**RECONNECT)

    def start(self, call, *args, **options):
        """Runs what takes its time; what comes of it the device hears."""
        threading.Thread(target=self.attempt, args=(call, args, options), daemon=True).start()

    def attempt(self, call, args, options):
        with contextlib.suppress(socketio.exceptions.ConnectionError):
            call(*args, **options)

    def wait_for(self, call, *args, **options):
        return call(*args, **options)


class Asyncio(Device):
    loop = asyncio.new_event_loop()

    def new_client(self):
        return socketio.AsyncClient(**RECONNECT)

    def start(self, call, *args, **options):
        return asyncio.run_coroutine_threadsafe(call(*args, **options), self.loop)

    def wait_for(self, call, *args, **options):
        return self.start(call, *args, **options).result(2 * DEADLINE)


class Scene:
    """A scenario on its way over one transport; its methods are the words of the scenarios."""

    def __init__(self, form, way):
        self.form, self.way, self.devices, self.names = form, way, {}, Names(ask(driver="begin"))

    def connect(self, name, auth={"token": "$token"}, resume=False):
        url = ask(driver="gate", device=name)["url"]
        self.devices[name] = self.form(name, url, WAYS[self.way], self.names.fill(auth), resume)
        self.devices[name].open()

    def hear(self, devices, events):
        for name in devices.split():
            for event in events:
                self.devices[name].hears(self.names, *event)

    def send(self, name, event, data=None, ack=None):
        device, data = self.devices[name], self.names.fill(data)
        if ack is None:
            return device.wait_for(device.client.emit, event, data)
        answer = device.wait_for(device.client.call, event, data, timeout=DEADLINE)
        if not self.names.fits(ack, answer):
            raise Failure(f"{event} was acknowledged with {brief(answer)}, and {brief(ack)} was wanted")

    def request(self, line, status, body=None, answer=None, **who):
        method, path = self.names.fill(line).split(" ")
        headers = {"authorization": f"Bearer {self.names.fill(who['as'])}", "content-type": "application/json"}
        data = json.dumps(self.names.fill(body), ensure_ascii=False).encode() if body else None
        got = requests.request(method, self.names.known["api"] + path, headers=headers, data=data, timeout=DEADLINE)
        if got.status_code != status or (answer and not self.names.fits(answer, got.json())):
            raise Failure(f"{method} {path} was answered {got.status_code} {got.text[:400]}, and {status} {brief(answer)} was wanted")

    def driver(self, what, answer=None, **step):
        got = ask(driver=what, **self.names.fill(step))
        if answer and not self.names.fits(answer, got):
            raise Failure(f"the driver answered {brief(got)}")

    def reached(self, name):
        self.devices[name].reached()


def play(scenario, form, way):
    scene = Scene(form, way)
    try:
        for at, step in enumerate(scenario["steps"], 1):
            (word, subject), *rest = step.items()
            getattr(scene, word)(subject, **dict(rest))
        print(f"ok {scenario['name']} ({way})")
        return True
    except Exception as error:
        print(f"not ok {scenario['name']} ({way})\n  step {at}: {type(error).__name__}: {error}")
        return False
    finally:
        for device in scene.devices.values():
            device.close()


if __name__ == "__main__":
    form = {"asyncio": Asyncio, "threads": Threads}[sys.argv[1]]
    threading.Thread(target=Asyncio.loop.run_forever, daemon=True).start()
    passed = [
        play(scenario, form, way)
        for scenario in ask(driver="scenarios")
        for way in scenario.get("over", ["websocket"])
    ]
    sys.exit(0 if all(passed) else 1)
