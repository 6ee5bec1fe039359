#!/bin/bash
# Lets Schemathesis make up requests from the description of the API and judge every answer by it; SEED repeats a run.
set -eu -o pipefail
cd "$(dirname "$0")/.."
scripts/install.sh build schemathesis
cargo build --quiet --locked
BELLHOP=$(realpath "${CARGO_TARGET_DIR:-target}/debug/bellhop")
from=$PWD/tests/schemathesis
tool=$PWD/target/schemathesis/venv/bin/schemathesis

at_least=10000
# What CI tries is always the same; by hand, each time something else.
seed=${SEED:-${CI:+1}}
seed=${seed:-$(shuf -i 1-999999 -n 1)}
echo "seed $seed"

# shellcheck source=scripts/services.sh
. scripts/services.sh
trap 'stop keyed embedded; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start_node() { # start_node <name> [<variable=value…>]: sets url
    local name=$1 port
    for _ in {1..5}; do # again when the port was taken in between
        port=$(free_port)
        mkdir -p "$work/$name"
        start "$name" env --chdir="$work/$name" BELLHOP_LISTEN="127.0.0.1:$port" BELLHOP_ADMIN_LISTEN=127.0.0.1:0 RUST_LOG=bellhop=warn "${@:2}" "$BELLHOP" serve
        url=http://127.0.0.1:$port
        if ready "$name" curl -sf "$url/api/client-config"; then return; fi
    done
    give_up "$name"
}

try() { # try <name> <seed> <option…>: the summary, and all that is a finding, go to the output; numbers to files
    ( cd "$work" && BELLHOP_URL=$url ANSWERS=$work/$1.answers PYTHONPATH=$from PYTHONDONTWRITEBYTECODE=1 \
        timeout 1200 "$tool" --config-file "$from/schemathesis.toml" run "$url/api/openapi.json" --seed "$2" --checks all "${@:3}" ) |
        tee "$work/$1.output" | stdbuf -oL cut -c 1-2000 || failed=yes
}
number() { # number <pattern>: the sum over all runs
    cat "$work"/*.output "$work"/*.answers | { grep -oE "$1" || true; } | grep -oE '[0-9]+' | awk '{ n += $1 } END { print n + 0 }'
}
token() { JWT_SECRET=$secret "$BELLHOP" token --ttl 2h --user "$@"; }

failed=
secret=$(head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1)
API_KEY=$(head -c 16 /dev/urandom | sha256sum | cut -d ' ' -f 1)
start_node keyed JWT_SECRET="$secret" BELLHOP_API_KEYS="schemathesis:$(printf %s "$API_KEY" | sha256sum | cut -d ' ' -f 1)"
USER_TOKEN=$(token schemathesis) PUBLISHER_TOKEN=$(token publisher --scope notifications:publish)
export API_KEY USER_TOKEN PUBLISHER_TOKEN
try keyed "$seed"
# Requests that follow from answers cannot be made up twice alike, at which the tool ends that phase: so it begins several times.
for turn in {1..5}; do try "sequences-$turn" $((seed + turn)) --phases stateful; done

# The one operation that only the embedded default has.
start_node embedded
USER_TOKEN='' PUBLISHER_TOKEN='' API_KEY='' try embedded "$seed" --include-operation-id createDevToken --phases examples,coverage,fuzzing

cases=$(number '[0-9]+ generated') findings=$(number '[0-9]+ unique failures?') errors=$(number 'server errors: [0-9]+')
echo "# schemathesis: $cases cases, $findings findings, $errors server errors (seed $seed)"
[ -z "$failed" ] && [ "$findings" -eq 0 ] && [ "$errors" -eq 0 ] || exit 1
[ "$cases" -ge "$at_least" ] || { echo "fewer cases than $at_least" >&2; exit 1; }
