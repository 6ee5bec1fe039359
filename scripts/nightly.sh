#!/bin/bash
# Everything that takes longer than a gate may: several seeds of all faults, a long cocktail, the whole matrix of defects, long histories, many made-up requests. SEED is the first seed (today's date unless said), SEEDS how many. Some three hours.
set -u -o pipefail
cd "$(dirname "$0")/.."
seed=${SEED:-$(date +%Y%m%d)00} seeds=${SEEDS:-3}
results=$(mktemp)
trap 'rm -f "$results"' EXIT

part() { # part <name> <command…>: goes on when it fails, and remembers that
    local began=$SECONDS verdict=passed
    printf '\n=== %s\n' "$1"
    "${@:2}" || verdict="FAILED, again by: ${*:2}"
    printf '%-10s %5s s  %s\n' "$1" $((SECONDS - began)) "$verdict" >>"$results"
}

make=(make --no-print-directory)
part check "${make[@]}" check
part faults "${make[@]}" faults SEED="$seed" ARGS="--seeds $seeds"
part cocktail "${make[@]}" faults FAULTS=F20 SEED="$seed" SECONDS=600 ARGS=--shrink
part bugs "${make[@]}" bugs ALL=1
for store in sqlite postgres; do
    part "$store" scripts/with-services.sh env HISTORIES=100 TEST_STORE=$store cargo test --locked --test it histor
done
part requests "${make[@]}" fuzz-api SEED="$seed"
printf '\n=== summary, seed %s\n' "$seed"
cat "$results"
! grep -q FAILED "$results"
