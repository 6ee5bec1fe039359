#!/bin/bash
# Measures two release nodes with the load generator of BENCH_DIR, and leaves its figures in bench-results/.
# Knobs (environment): REPS, USERS, SECS, STEPS; the load generator's README names the others.
set -eu
cd "$(dirname "$0")/.."
BENCH_DIR=${BENCH_DIR:-../shared/bench}
[ -x "$BENCH_DIR/run_peers.sh" ] && [ -d "$BENCH_DIR/pushbench" ] || {
    echo "the load generator is not at $BENCH_DIR (run_peers.sh and pushbench/ are wanted there); set BENCH_DIR to where it is" >&2; exit 2; }

echo "building in release mode …" >&2
cargo build --release --quiet --locked
BELLHOP_BIN=$(realpath "${CARGO_TARGET_DIR:-target}/release/bellhop")
export BELLHOP_BIN

# A copy, because the load generator builds and writes inside its own folder.
copy=target/bench
mkdir -p "$copy"
chmod -R u+w "$copy"
cp -Rpf "$BENCH_DIR/." "$copy/"
chmod -R u+w "$copy"
cargo build --release --quiet --manifest-path "$copy/pushbench/Cargo.toml" --target-dir "$copy/pushbench/target"

# PostgreSQL runs as another user there, so the data must be where that user can reach it.
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/bellhop-bench.XXXXXX")
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 711 "$TMPDIR"
export TMPDIR
export REPS=${REPS:-1} USERS=${USERS:-2000} SECS=${SECS:-5} STEPS=${STEPS:-idle targeted saturate broadcast api apisat}
"$copy/run_peers.sh" bellhop | tee "$TMPDIR/figures"

mkdir -p bench-results
cp "$copy"/results/bellhop/* bench-results/
cp "$TMPDIR/figures" bench-results/figures.txt
! grep '^FAILED' "$TMPDIR/figures" >&2
