# shellcheck shell=bash
# Where the programs of a measurement are: sets `bellhop` (BELLHOP_BIN) and `pushbench` (PUSHBENCH_BIN), or says who builds them; sourced, not run.

bellhop=${BELLHOP_BIN:-${CARGO_TARGET_DIR:-target}/release/bellhop}
pushbench=${PUSHBENCH_BIN:-target/bench/pushbench/target/release/pushbench}
for program in "$bellhop" "$pushbench"; do
    [ -x "$program" ] || { echo "$program is missing: make bench builds it" >&2; exit 2; }
done
