#!/bin/bash
# Does what `make cluster` tells people to try, and lets official clients through its balancer; fails when something does not work: CLUSTER_ONCE=scripts/smoke.sh scripts/cluster.sh.
set -eu
heard=$(mktemp -d)
listeners=()
trap 'kill "${listeners[@]}" 2>/dev/null || true; rm -rf "$heard"' EXIT

listen() { # listen <name> <url>: user 42's events, as lines of a file
    timeout 120 "$BELLHOP" listen --user 42 --url "$2" >"$heard/$1" 2>"$heard/$1.log" &
    listeners+=($!)
    hears "$1" notification:synced
}
hears() { # hears <name> <text>: polls the listener's file, up to 20 s
    local deadline=$((SECONDS + 20))
    until grep -q "$2" "$heard/$1"; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "the listener on $1 did not hear $2; it heard:"; cat "$heard/$1" "$heard/$1.log"; exit 1; } >&2
        sleep 0.1 # the pause of a bounded poll
    done
    echo "the listener on $1 heard $2"
}

scripts/test-clients.sh ./balancer.mjs

# Sticky sessions are tried through the balancer; what else a cluster on loopback lacks is not asked for here.
checklist=$("$BELLHOP" check-config --production --websocket-url "$BALANCER_URL" || true)
grep '✓ 3' <<<"$checklist" || { echo "$checklist" >&2; exit 1; }

listen node-3 "$NODE_3_URL"
listen balancer "$BALANCER_URL"

"$BELLHOP" send --user 42 --title by-command --url "$NODE_1_URL" >"$heard/sent"
hears node-3 by-command
hears balancer by-command

kill -9 "$NODE_2_PID"
listen balancer-again "$BALANCER_URL"
publisher=$("$BELLHOP" token --user svc --scope notifications:publish)
curl -fsS --max-time 20 --retry 5 --retry-all-errors -o "$heard/published" -H 'Content-Type: application/json' -H "Authorization: Bearer $publisher" \
    -H 'Idempotency-Key: smoke-1' -d '{"userId":"42","title":"by-curl"}' "$BALANCER_URL/api/notifications"
hears node-3 by-curl
hears balancer-again by-curl

"$BELLHOP" probe --url "$NODE_3_URL"
