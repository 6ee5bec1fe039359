#!/bin/bash
# Starts a whole cluster on this machine to play with: Redis, PostgreSQL, three nodes and a sticky HAProxy; Ctrl-C stops them all.
# CLUSTER_ONCE='command' runs the command once everything is up (BELLHOP, BALANCER_URL, NODE_n_URL, NODE_n_PID in its environment), then stops.
set -eu
cd "$(dirname "$0")/.."
scripts/install.sh build services balancer
# shellcheck source=scripts/services.sh
. scripts/services.sh
nodes=(1 2 3)

settings() { # settings <port> <admin port>: a node's, but for the secret
    echo "DATABASE_URL=$postgres_url REDIS_URL=redis://127.0.0.1:$redis_port BELLHOP_LISTEN=127.0.0.1:$1" \
        "BELLHOP_ADMIN_LISTEN=127.0.0.1:$2 CORS_ORIGINS=http://localhost:5173,http://localhost:4200 BELLHOP_LOG_FORMAT=text"
}

start_node() { # start_node <n>: exports NODE_n_URL and NODE_n_PID, sets admin_port[n]
    local n=$1 port
    for _ in {1..5}; do # again when a port was taken in between
        port=$(free_port $((3000 + n)))
        admin_port[n]=$(free_port $((9090 + n)))
        # In the temporary folder, so that no .env of this one changes what is tried.
        # shellcheck disable=SC2046 # a list of settings
        start "node-$n" env --chdir="$work" $(settings "$port" "${admin_port[n]}") RUST_LOG="${RUST_LOG:-info}" "$(realpath "$BELLHOP")" serve
        if ready "node-$n" curl -fsS --max-time 2 "http://127.0.0.1:${admin_port[n]}/readyz"; then
            export "NODE_${n}_URL=http://127.0.0.1:$port" "NODE_${n}_PID=${pid_of[node-$n]}"
            return
        fi
    done
    give_up "node-$n"
}

# A polling client's requests must all reach the node that holds its session. Engine.IO has no cookie of its own for
# that, so the balancer inserts one. Timeouts are longer than a held poll (ping interval 25 s + timeout 20 s).
haproxy_config() { # haproxy_config <port>
    cat <<CONFIG
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 75s
  timeout client-fin 30s
  timeout tunnel 1h
frontend clients
  bind 127.0.0.1:$1
  default_backend nodes
backend nodes
  balance leastconn
  option httpchk GET /readyz
  option redispatch
  cookie bellhop_sticky insert indirect nocache httponly dynamic
  dynamic-cookie-key $JWT_SECRET
  default-server check inter 1s fall 2 rise 1
CONFIG
    local n url
    for n in "${nodes[@]}"; do url=NODE_${n}_URL; echo "  server node-$n ${!url#http://} port ${admin_port[n]}"; done
}

start_balancer() { # exports BALANCER_URL
    local port
    for _ in {1..5}; do # again when the port was taken in between
        port=$(free_port 8080)
        haproxy_config "$port" >"$work/haproxy.cfg"
        start haproxy haproxy -db -f "$work/haproxy.cfg"
        if ready haproxy curl -sS --max-time 2 "http://127.0.0.1:$port/api/client-config"; then
            export BALANCER_URL=http://127.0.0.1:$port
            return
        fi
    done
    give_up haproxy
}

say_what_to_try() {
    local bellhop="JWT_SECRET=$JWT_SECRET $BELLHOP" publisher
    publisher=$("$BELLHOP" token --user svc --scope notifications:publish --ttl 24h)
    cat <<TEXT

The cluster is up: three nodes behind $BALANCER_URL
    node 1  $NODE_1_URL   node 2  $NODE_2_URL   node 3  $NODE_3_URL
    logs    $work/*.log

In a second terminal, in this folder, hear what user 42 is told on node 2:
    $bellhop listen --user 42 --url $NODE_2_URL

In a third, publish on node 1:
    $bellhop send --user 42 --title Hello --url $NODE_1_URL

or through the balancer, as your back end would:
    curl -H 'Content-Type: application/json' -H 'Authorization: Bearer $publisher' \\
         -d '{"userId":"42","title":"Hello"}' $BALANCER_URL/api/notifications

Lose a node (the listener above is on it; one on $BALANCER_URL comes back by another node):
    kill -9 $NODE_2_PID

and start it again; it ends by a Ctrl-C of its own:
    env --chdir=$work JWT_SECRET=$JWT_SECRET $(settings "${NODE_2_URL##*:}" "${admin_port[2]}") $(realpath "$BELLHOP") serve

Ctrl-C here stops the rest and removes the data.
TEXT
}

report_ends() { # until the last child has ended: says which went
    local ended status name
    while status=0; wait -n -p ended || status=$?; [ -n "${ended:-}" ]; do
        for name in "${!pid_of[@]}"; do
            if [ "${pid_of[$name]}" = "$ended" ]; then echo "$name ended (status $status); see $work/$name.log"; unset "pid_of[$name]"; fi
        done
    done 2>/dev/null
}

stop_all() {
    echo "stopping …"
    stop haproxy
    signal=INT stop "${nodes[@]/#/node-}" # nobody needs to be sent away slowly
    stop_services
}

echo "building …" >&2
cargo build --quiet --locked
export BELLHOP=${CARGO_TARGET_DIR:-target}/debug/bellhop
JWT_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export JWT_SECRET

trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
echo "starting Redis, PostgreSQL, three nodes and HAProxy …" >&2
start_redis
# shellcheck disable=SC2119 # without options, so with its own, durable settings
start_postgres
for n in "${nodes[@]}"; do start_node "$n"; done
start_balancer

if [ -n "${CLUSTER_ONCE:-}" ]; then
    bash -c "$CLUSTER_ONCE"
else
    say_what_to_try
    report_ends
fi
