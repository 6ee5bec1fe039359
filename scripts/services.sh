# shellcheck shell=bash
# Functions that start real services on free ports of 127.0.0.1, with data in a temporary folder, and stop them by pid; sourced, not run.

PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d "${TMPDIR:-/tmp}/bellhop.XXXXXX")
chmod 711 "$work" # PostgreSQL refuses to be root, so it reaches its data as another user
declare -A pid_of=()

is_free() { # is_free <port>: nobody listens there
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_port() { # free_port [<port>]: that one when it is free, else one below the range that outgoing connections take
    local port=${1:-$(shuf -i 20000-29999 -n 1)} attempt
    for attempt in {1..100}; do
        if is_free "$port"; then echo "$port"; return; fi
        port=$(shuf -i 20000-29999 -n 1)
    done
    echo "no free port found in $attempt attempts" >&2
    return 1
}

start() { # start <name> <command…>: in a session of its own, so that Ctrl-C reaches this script alone; it ends with this script at the latest
    setsid setpriv --pdeathsig "${end_signal:-TERM}" ${as_user:+--reuid="$as_user" --regid="$as_user" --clear-groups} \
        "${@:2}" >"$work/$1.log" 2>&1 </dev/null &
    pid_of[$1]=$!
}

alive() { # alive <name>
    kill -0 "${pid_of[$1]}" 2>/dev/null
}

ready() { # ready <name> <command…>: polls until the command succeeds; fails when the process ends first, or after 30 s
    local deadline=$((SECONDS + 30))
    while alive "$1" && [ "$SECONDS" -lt "$deadline" ]; do
        if "${@:2}" >/dev/null 2>&1 && alive "$1"; then return 0; fi
        sleep 0.1 # the pause of a bounded poll
    done
    return 1
}

stop() { # stop <name…>: asks all, waits up to 15 s for each, then kills
    local name deadline
    for name in "$@"; do kill -"${signal:-TERM}" "${pid_of[$name]:-}" 2>/dev/null || unset "pid_of[$name]"; done
    for name in "$@"; do
        [ -n "${pid_of[$name]:-}" ] || continue
        deadline=$((SECONDS + 15))
        while alive "$name" && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.05; done # the pause of a bounded poll
        kill -KILL "${pid_of[$name]}" 2>/dev/null || true
        unset "pid_of[$name]"
    done
}

stop_services() { # Redis, PostgreSQL (INT: without waiting for its clients), and the temporary folder
    stop redis second_redis
    signal=INT stop postgres
    rm -rf "$work"
}

give_up() { # give_up <name>: says why it did not start
    echo "$1 did not start. Its log, $work/$1.log, ends with:" >&2
    tail -n 20 "$work/$1.log" >&2
    exit 1
}

start_redis() { # start_redis [<name>]: sets redis_port
    local name=${1:-redis}
    for _ in {1..5}; do # again when the port was taken in between
        redis_port=$(free_port)
        start "$name" redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work"
        if ready "$name" redis-cli -p "$redis_port" ping; then return; fi
    done
    give_up "$name"
}

start_postgres() { # start_postgres [<option…>]: sets postgres_url; whoever reaches 127.0.0.1 is let in, as befits throw-away data
    local bin as_user='' data=$work/postgres port
    bin=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin | sort -V | tail -n 1)
    mkdir -m 700 "$data"
    if [ "$(id -u)" -eq 0 ]; then as_user=postgres; chown postgres: "$data"; fi
    start initdb "$bin/initdb" --pgdata="$data" --username=bellhop --auth=trust --encoding=UTF8 --no-locale
    wait "${pid_of[initdb]}" || give_up initdb
    unset 'pid_of[initdb]'
    for _ in {1..5}; do # again when the port was taken in between
        port=$(free_port)
        postgres_url=postgres://bellhop@127.0.0.1:$port/postgres
        end_signal=INT start postgres "$bin/postgres" -D "$data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= "$@"
        if ready postgres psql -Xqc 'SELECT 1' "$postgres_url"; then return; fi
    done
    give_up postgres
}
