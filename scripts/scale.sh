#!/bin/bash
# Shows what more nodes and more sockets cost: 1, 2 and 4 nodes with the users spread, beside a node that has none of them; and
# one node with more and more sockets, then four nodes with 15 000 each, live and served; and clients that come back to a node
# with their `lastSeq`, all at once. Knobs: SECS, SIZES, STEPS.
set -eu
cd "$(dirname "$0")/.."
scripts/install.sh build services bench
# shellcheck source=scripts/services.sh
. scripts/services.sh
names=()
trap 'stop "${names[@]}"; stop_services' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck source=scripts/measured.sh
. scripts/measured.sh
seconds=${SECS:-8} sizes=${SIZES:-5000 10000 15000 19000} steps=${STEPS:-nodes sockets resumes}
ulimit -n "$(ulimit -Hn)"

start_redis
start_postgres -c max_connections=200
export JWT_SECRET=only-for-measuring-0123456789-0123456789 RUST_LOG=warn
export REDIS_URL=redis://127.0.0.1:$redis_port DATABASE_URL=$postgres_url
export BELLHOP_LIMIT_CONNECTIONS_PER_USER=0 BELLHOP_LIMIT_HANDSHAKES_PER_SECOND=0
export BELLHOP_LIMIT_PUBLISHES_PER_KEY=0 BELLHOP_LIMIT_PUBLISHES_PER_USER=0
"$bellhop" migrate >/dev/null

declare -A port admin
nodes() { # nodes <how many>: that many new nodes, each in `names`, instead of those before
    local n name
    stop "${names[@]}"
    names=()
    for n in $(seq "$1"); do
        name=node$n port[$name]=$(free_port) admin[$name]=$(free_port)
        names+=("$name")
        BELLHOP_LISTEN=127.0.0.1:${port[$name]} BELLHOP_ADMIN_LISTEN=127.0.0.1:${admin[$name]} start "$name" "$bellhop" serve
        ready "$name" curl -fsS "http://127.0.0.1:${admin[$name]}/readyz" || give_up "$name"
    done
}
bus() { # bus <direction> <node>: messages so far
    curl -fsS "http://127.0.0.1:${admin[$2]}/metrics" | sed -n "s/^bellhop_bus_messages_total{direction=\"$1\"} //p"
}
list() { # list <before> <after> <node…>: its ports, with commas
    local before=$1 after=$2 name all=
    for name in "${@:3}"; do all+=${all:+,}$before${port[$name]}$after; done
    echo "$all"
}
servers() { # servers <node…>: their pids, for whoever measures them
    local name all=
    for name in "$@"; do all+=server=${pid_of[$name]},; done
    echo "${all}redis=${pid_of[redis]}"
}
load() { # load <name> <subcommand and options…>
    timeout 400 "$pushbench" "${@:2}" --secret "$JWT_SECRET" --match-event bench:tick --name "$1" --json "$work/$1.json" \
        >"$work/$1.txt" 2>&1 || { tail -n 5 "$work/$1.txt" >&2; exit 1; }
}
emits=(--publish-body '{"userId":"{user}","event":"bench:tick","payload":{"title":"bench-ts-{ts}-id-{id}"}}'
    --publish-bearer-sub svc --publish-claims-json '{"scope":"notifications:publish"}')
figure() { # figure <name> <expression of o>
    python3 -c "import json,sys; o=json.load(open(sys.argv[1])); print($2)" "$work/$1.json"
}

if [[ " $steps " == *" nodes "* ]]; then
    # As many under way for each node, however many there are. The load generator does the same for each delivery: what it
    # takes says how fast the machine was.
    echo "| nodes | emits/s | CPU of the nodes, µs a delivery | of the load generator | lost | published a publish | received a publish | received by a node without the users |"
    echo "|---:|---:|---:|---:|---:|---:|---:|---:|"
    for n in 1 2 4; do
        nodes $((n + 1))
        having=("${names[@]:0:n}") without=${names[n]}
        load "scale-$n" targeted --saturate --inflight $((64 * n)) --users 8000 --secs "$seconds" --nodes "$(list ws://127.0.0.1: '' "${having[@]}")" \
            --publish-url "$(list http://127.0.0.1: /api/emit "${having[@]}")" "${emits[@]}" --server-pids "$(servers "${having[@]}")"
        published=0 received=0
        for name in "${having[@]}"; do
            published=$((published + $(bus published "$name")))
            received=$((received + $(bus received "$name")))
        done
        figure "scale-$n" "'| $n | {:,.0f} | {:.1f} | {:.1f} | {} | {:.3f} | {:.3f} | $(bus received "$without") |'.format(o['deliveries_per_s'], o['cpu']['by_label_us_per_delivery']['server'], o['cpu']['pushbench_us_per_delivery'], o['lost'], $published / o['publisher']['acked'], $received / o['publisher']['acked'])"
    done
    echo
fi

if [[ " $steps " == *" sockets "* ]]; then
    echo "| sockets | nodes | connects/s | memory, bytes a connection | CPU idle, µs a connection and second | 500 emits/s: lost | p99 ms |"
    echo "|---:|---:|---:|---:|---:|---:|---:|"
    row="'| {} | {} | {:,.0f} | {:,.0f} | {:.2f} | {} | {:.1f} |'"
    for size in $sizes; do
        nodes 1
        load idle idle --hold 26 --users "$size" --nodes "$(list ws://127.0.0.1: '' node1)" --server-pids "$(servers node1)"
        load served targeted --rate 500 --users "$size" --secs "$seconds" --nodes "$(list ws://127.0.0.1: '' node1)" \
            --publish-url "$(list http://127.0.0.1: /api/emit node1)" "${emits[@]}" --server-pids "$(servers node1)"
        read -r lost p99 < <(figure served "o['lost'], o['latency_ms']['p99']" | tr -d '(),')
        figure idle "$row.format($size, 1, o['connect']['connects_per_s'], o['connect']['rss_bytes_per_conn'], o['idle']['server_cpu_us_per_conn_per_s'], $lost, $p99)"
    done
    # A load generator for each node, for it has no more descriptors than a node has.
    nodes 4
    running=()
    for n in 1 2 3 4; do
        load "idle-$n" idle --hold 40 --settle 20 --users 15000 --user-offset $((n * 100000)) --nodes "$(list ws://127.0.0.1: '' "node$n")" \
            --connect-timeout 120 --server-pids "$(servers "node$n")" &
        running+=($!)
    done
    wait "${running[@]}"
    running=()
    for n in 1 2 3 4; do
        # Each publishes on the next node.
        load "served-$n" targeted --rate 125 --warmup 30 --users 15000 --user-offset $((n * 100000)) --secs "$seconds" --nodes "$(list ws://127.0.0.1: '' "node$n")" \
            --publish-url "$(list http://127.0.0.1: /api/emit "node$((n % 4 + 1))")" "${emits[@]}" --connect-timeout 120 --server-pids "$(servers "node$n")" &
        running+=($!)
    done
    wait "${running[@]}"
    python3 - "$work" <<'PYTHON'
import json, sys
load = lambda name: [json.load(open(f"{sys.argv[1]}/{name}-{n}.json")) for n in range(1, 5)]
idle, served = load("idle"), load("served")
mean = lambda values: sum(values) / len(values)
print("| 4 × 15000 | 4 | {:,.0f} | {:,.0f} | {:.2f} | {} | {:.1f} |".format(
    sum(o["connect"]["connects_per_s"] for o in idle), mean([o["connect"]["rss_bytes_per_conn"] for o in idle]),
    mean([o["idle"]["server_cpu_us_per_conn_per_s"] for o in idle]), sum(o["lost"] for o in served),
    max(o["latency_ms"]["p99"] for o in served)))
PYTHON
fi

if [[ " $steps " == *" resumes "* ]]; then
    echo
    echo "| clients that come back at once, with lastSeq, and are told that they missed nothing | resumes/s | statements that read for them, each |"
    echo "|---:|---:|---:|"
    sum() { # sum <metric, as a pattern> <file>
        awk "/^$1 / { sum += \$2 } END { print sum + 0 }" "$2"
    }
    reads='bellhop_socket_reads_total\{kind="(standing|missed)"\}'
    nodes 2
    # Their node is killed when the refreshes of the beginning are over, and they do not wait before they come to the other one. One emit a second, for the
    # load generator wants a publisher.
    load resumes storm --users 16000 --rate 1 --secs 24 --kill-at 12 --kill-cmd "curl -fsS http://127.0.0.1:${admin[node1]}/metrics >$work/before && kill -9 ${pid_of[node2]}" \
        --backoff-min-ms 1 --backoff-max-ms 1 --resume-auth-key lastSeq --resume-field seq --resume-default 0 \
        --nodes "$(list ws://127.0.0.1: '' node1 node2)" --publish-url "$(list http://127.0.0.1: /api/emit node1)" "${emits[@]}" \
        --server-pids "$(servers node1 node2)"
    curl -fsS "http://127.0.0.1:${admin[node1]}/metrics" >"$work/after"
    statements=$(($(sum "$reads" "$work/after") - $(sum "$reads" "$work/before")))
    unmissed=$(sum 'bellhop_reconnections_total\{result="nothing_missed"\}' "$work/after")
    [ "$unmissed" = 8000 ] || { echo "of 8 000 clients $unmissed came back" >&2; exit 1; }
    figure resumes "'| {:,} | {:,.0f} | {:.3f} |'.format($unmissed, $unmissed / o['secs_until_all_back'], $statements / $unmissed)"
fi
