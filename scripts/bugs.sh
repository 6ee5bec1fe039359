#!/bin/bash
# Builds each known defect in and breaks the cluster where that must show: a defect that no scenario finds fails. BUGS="no-feed …" takes some, ALL=1 fills the whole matrix, SCALE is the load in percent.
set -eu -o pipefail
cd "$(dirname "$0")/.."
scripts/install.sh build services faults
target=${CARGO_TARGET_DIR:-target} scale=${SCALE:-50} scenarios="F3 F4 F9 F12 F18 F18c"
kept=$target/bugs
mkdir -p "$kept"

# Each defect, and the scenario that finds it.
named="read-before-subscribe:F18c no-gap-repair:F4 no-feed:F3 ignore-commit-order:F18 publish-before-commit:F9 no-resubscribe:F4 skip-on-full:F12"

play() { # play <program> <scenario>: what the checker found, "–" if nothing
    local log=$kept/$(basename "$1")-$2.log status=0
    "$target/debug/faults" run --bellhop "$1" --faults "$2" --scale "$scale" --folder "$kept" >"$log" 2>&1 || status=$?
    case $status in
    0) echo – ;;
    1) grep -oE '^      (C[0-9]+ [a-z -]+|the scenario.s own):' "$log" | sed -E 's/^ +//; s/:$//' | sort -u | paste -sd, | sed 's/,/, /g' ;;
    *) cat "$log" >&2; return 1 ;;
    esac
}

cargo build --quiet --locked -p faults
missed=0
[ -z "${ALL:-}" ] || { printf '| defect |'; printf ' %s |' $scenarios; printf '\n| --- |'; printf ' --- |%.0s' $scenarios; echo; }
for pair in $named; do
    bug=${pair%%:*} scenario=${pair##*:}
    [ -z "${BUGS:-}" ] || [[ " $BUGS " == *" $bug "* ]] || continue
    cargo build --quiet --locked -p bellhop --features "bug-$bug"
    cp "$target/debug/bellhop" "$kept/$bug"
    if [ -n "${ALL:-}" ]; then
        printf '| %s |' "$bug"
        for one in $scenarios; do
            found=$(play "$kept/$bug" "$one")
            printf ' %s |' "$found"
            [ "$one" != "$scenario" ] || [ "$found" != – ] || missed=$((missed + 1))
        done
        echo
    else
        found=$(play "$kept/$bug" "$scenario")
        printf '%s: %s: %s\n' "$bug" "$scenario" "$found"
        [ "$found" != – ] || missed=$((missed + 1))
    fi
done
cargo build --quiet --locked -p bellhop
[ $missed -eq 0 ] || { echo "$missed defects were not found where they should be" >&2; exit 1; }
