#!/bin/bash
# Counts what one publish costs at rest: a release node takes it, another one has the user's socket. Round trips, statements,
# commands and writes are counted by the services and by strace, allocations and instructions by callgrind.
set -eu
cd "$(dirname "$0")/.."
scripts/install.sh build services bench
# shellcheck source=scripts/services.sh
. scripts/services.sh
trap 'stop taking holding; stop_services' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck source=scripts/measured.sh
. scripts/measured.sh

# Two runs of one length, one with more publishes: what they differ by is the publishes', and nothing that the clock or the
# connect brings.
seconds=10 few=10 many=30

start_redis
start_postgres -c shared_preload_libraries=pg_stat_statements
export JWT_SECRET=only-for-counting-0123456789-0123456789 RUST_LOG=warn
export REDIS_URL=redis://127.0.0.1:$redis_port DATABASE_URL=$postgres_url
export BELLHOP_LIMIT_PUBLISHES_PER_KEY=0 BELLHOP_LIMIT_PUBLISHES_PER_USER=0
psql -Xqc 'CREATE EXTENSION pg_stat_statements' "$postgres_url"
"$bellhop" migrate >/dev/null

node() { # node <name> <port> <admin port> [<tool…>]: a node, under a tool that watches it
    BELLHOP_LISTEN=127.0.0.1:$2 BELLHOP_ADMIN_LISTEN=127.0.0.1:$3 start "$1" "${@:4}" "$bellhop" serve
}
up() { # up <port>
    (exec 3<>"/dev/tcp/127.0.0.1/$1")
}
counters() { # statements of PostgreSQL, messages published to Redis, commands of Redis in all
    # Its own statements are told apart by what they read.
    psql -XAtc "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat%'" "$postgres_url"
    redis-cli -p "$redis_port" INFO commandstats | tr -d '\r' | sed -n 's/^cmdstat_publish:calls=\([0-9]*\),.*/\1/p'
    redis-cli -p "$redis_port" INFO stats | tr -d '\r' | sed -n 's/^total_commands_processed://p'
}
run() { # run <path> <body> <publishes a second> <directory> <tool>: both nodes from their start to their end
    local directory=$work/$4 admin_taking admin_holding
    mkdir "$directory"
    taking=$(free_port) holding=$(free_port) admin_taking=$(free_port) admin_holding=$(free_port)
    for name in taking holding; do
        port=$name admin=admin_$name out=$directory/$name.$5
        case $5 in
        strace) tool=(strace -D -f -yy -qq -e 'trace=read,write,readv,writev,sendto,recvfrom,sendmsg,recvmsg' -o "$out") ;;
        callgrind) tool=(valgrind --tool=callgrind --quiet "--callgrind-out-file=$out") ;;
        esac
        node $name "${!port}" "${!admin}" "${tool[@]}"
        ready $name up "${!port}" || give_up $name
    done
    counters >"$directory/before"
    timeout 300 "$pushbench" targeted --users 1 --devices 1 --rate "$3" --secs "$seconds" --nodes "ws://127.0.0.1:$holding" \
        --publish-url "http://127.0.0.1:$taking$1" --publish-body "$2" --match-event bench:tick --match-event notification:new \
        --secret "$JWT_SECRET" --publish-bearer-sub svc --publish-claims-json '{"scope":"notifications:publish"}' --name budget \
        --json "$directory/load.json" >"$directory/load.txt" 2>&1 || { tail -n 5 "$directory/load.txt" >&2; exit 1; }
    counters >"$directory/after"
    stop holding taking
    echo "$redis_port $(sed 's/.*:\([0-9]*\)\/.*/\1/' <<<"$postgres_url") $taking $holding" >"$directory/ports"
}

title='bench-ts-{ts}-id-{id}'
durable='{"userId":"{user}","title":"'$title'","message":"Your order has shipped and arrives tomorrow","type":"ORDER"}'
transient='{"userId":"{user}","event":"bench:tick","payload":{"title":"'$title'"}}'
for kind in durable transient; do
    path=/api/notifications
    [ $kind = durable ] || path=/api/emit
    for by in strace callgrind; do
        echo "counting a $kind publish by $by …" >&2
        run $path "${!kind}" $few "$kind-$by-few" $by
        run $path "${!kind}" $many "$kind-$by-many" $by
    done
done
python3 scripts/budget.py "$work"
