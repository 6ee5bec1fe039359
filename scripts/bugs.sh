#!/bin/bash
# Builds each known defect in and breaks the cluster where that must show: one that is not found by the check that is named here fails, and so does a finding where there is no defect. BUGS="no-feed …" takes some, ALL=1 fills the whole matrix, SCALE is the load in percent.
set -eu -o pipefail
cd "$(dirname "$0")/.."
scripts/install.sh build services faults
target=${CARGO_TARGET_DIR:-target} scale=${SCALE:-50}
kept=$target/bugs
mkdir -p "$kept"

# Each defect, the scenario that finds it, and the check that does. Those of lateness also need what is late.
named="read-before-subscribe:F18c:C11 no-gap-repair:F4:C1 no-feed:F3:C11 ignore-commit-order:F18:C1 publish-before-commit:F9:C1 no-resubscribe:F4:C11 skip-on-full:F12:C1"
if [ -n "${BUGS:-}" ]; then
    wanted=
    for bug in $BUGS; do
        one=$(tr ' ' '\n' <<<"$named" | grep "^$bug:") || { echo "$bug is no defect; there are: $(sed -E 's/:[^ ]*//g' <<<"$named")" >&2; exit 2; }
        wanted+="$one "
    done
    named=$wanted
fi
scenarios="F3 F4 F9 F12 F18 F18c"
[ -n "${ALL:-}" ] || scenarios=$(tr ' ' '\n' <<<"$named" | cut -d: -f2 | grep . | sort -u | paste -sd' ')

play() { # play <program> <scenario>: the checks that found something, "–" if none did
    local log=$kept/$(basename "$1")-$2.log status=0
    "$target/debug/faults" run --bellhop "$1" --faults "$2" --scale "$scale" --folder "$kept" >"$log" 2>&1 || status=$?
    case $status in
    0) echo – ;;
    1) grep -oE '^      (C[0-9]+ |the scenario.s own:)' "$log" | sed -E 's/^ +//; s/ $//; s/the scenario.*/own/' | sort -uV | paste -sd' ' ;;
    *) cat "$log" >&2; return 1 ;;
    esac
}

row() { # row <defect> [<the scenario> <the check>]: plays the scenarios; sets missed
    local found line="| ${1/none/none, as a control} |"
    for one in $scenarios; do
        if [ -z "${ALL:-}" ] && [ $# -gt 1 ] && [ "$one" != "$2" ]; then line+=" |"; continue; fi
        found=$(play "$kept/$1" "$one")
        line+=" $found |"
        if [ "$1" = none ]; then
            [ "$found" = – ] || missed=$((missed + 1))
        elif [ "$one" = "$2" ] && [[ " $found " != *" $3 "* ]]; then
            missed=$((missed + 1))
        fi
    done
    echo "$line"
}

cargo build --quiet --locked -p faults -p bellhop
cp "$target/debug/bellhop" "$kept/none"
missed=0
printf '| defect |'; printf ' %s |' $scenarios; printf '\n| --- |'; printf ' --- |%.0s' $scenarios; echo
row none
for one in $named; do
    IFS=: read -r bug scenario check <<<"$one"
    cargo build --quiet --locked -p bellhop --features "bug-$bug"
    cp "$target/debug/bellhop" "$kept/$bug"
    row "$bug" "$scenario" "$check"
done
cargo build --quiet --locked -p bellhop
[ $missed -eq 0 ] || { echo "$missed cells are wrong: a defect not found by its check, or a finding without a defect; see $kept/*.log" >&2; exit 1; }
