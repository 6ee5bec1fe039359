"""Reads what budget.sh has counted, and prints the budget of one publish: budget.py <directory>."""
import json
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
NODES = {"taking": "the node that takes it", "holding": "the node that has the socket"}
ALLOCATES = re.compile(r"^mi_(malloc|zalloc|realloc)_aligned$")


def services(run):
    """What PostgreSQL and Redis have counted during a run: statements, publishes, commands."""
    before, after = ([int(line) for line in (run / name).read_text().split()] for name in ("before", "after"))
    # A command that was never given has no line of its own.
    before = before if len(before) == 3 else [before[0], 0, before[-1]]
    return [late - early for late, early in zip(after, before)]


def writes(run, node):
    """Writes of a node by where they went, and its reads."""
    redis, postgres, taking, holding = (run / "ports").read_text().split()
    own = {"taking": taking, "holding": holding}[node]
    count = dict.fromkeys(("postgres", "redis", "client", "reads"), 0)
    for line in (run / f"{node}.strace").read_text(errors="replace").splitlines():
        call = re.match(r"\d+\s+(\w+)\(\d+<TCP:\[127\.0\.0\.1:(\d+)->127\.0\.0\.1:(\d+)\]>", line)
        if not call:
            continue
        name, near, far = call.groups()
        if name in ("read", "readv", "recvfrom", "recvmsg"):
            # What found nothing is a question of its own, and is not counted.
            count["reads"] += "EAGAIN" not in line
        elif far == postgres:
            count["postgres"] += 1
        elif far == redis:
            count["redis"] += 1
        elif near == own:
            count["client"] += 1
    return count


def profile(run, node):
    """Allocations and instructions of a node's whole life."""
    names, allocations, instructions, callee = {}, 0, 0, None
    for path in run.glob(f"{node}.callgrind*"):
        for line in path.read_text(errors="replace").splitlines():
            if named := re.match(r"(c?)fn=\((\d+)\)(?: (.*))?$", line):
                if named[3]:
                    names[named[2]] = named[3]
                if named[1]:
                    callee = names.get(named[2], "")
            elif line.startswith("calls="):
                if callee and ALLOCATES.match(callee):
                    allocations += int(line[6:].split()[0])
            elif line.startswith(("summary:", "totals:")):
                instructions = max(instructions, int(line.split()[1]))
    return allocations, instructions


def acknowledged(run):
    return json.loads((run / "load.json").read_text())["publisher"]["acked"]


def show(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}".replace(".0", "").replace("-0", "0")


def budget(kind):
    """What one publish of this kind costs: rows of a table."""
    rows = {}
    runs = [root / f"{kind}-strace-{size}" for size in ("few", "many")]
    publishes = acknowledged(runs[1]) - acknowledged(runs[0])
    counted = [services(run) for run in runs]
    words = ("statements of PostgreSQL", "`PUBLISH` to Redis", "commands of Redis in all")
    for word, few, many in zip(words, *counted):
        rows[word] = (many - few) / publishes
    words = {
        "postgres": "round trips to PostgreSQL",
        "redis": "writes to Redis",
        "client": "writes to its client",
        "reads": "reads that brought something",
    }
    for node, title in NODES.items():
        few, many = (writes(run, node) for run in runs)
        for where, word in words.items():
            rows[f"{title}: {word}"] = (many[where] - few[where]) / publishes
    runs = [root / f"{kind}-callgrind-{size}" for size in ("few", "many")]
    publishes = acknowledged(runs[1]) - acknowledged(runs[0])
    for node, title in NODES.items():
        counted = [profile(run, node) for run in runs]
        for word, few, many in zip(("allocations", "instructions"), *counted):
            rows[f"{title}: {word}"] = (many - few) / publishes
    return rows


table = {kind: budget(kind) for kind in ("durable", "transient")}
print("| one publish, at rest | durable | transient |\n|---|---:|---:|")
for row in table["durable"]:
    print(f"| {row} | {show(table['durable'][row])} | {show(table['transient'][row])} |")
