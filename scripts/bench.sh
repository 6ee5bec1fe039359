#!/bin/bash
# Measures two release nodes with the load generator of BENCH_DIR, beside its peers if PEERS=1, and counts what one publish costs.
# Knobs (environment): PEERS, REPS, USERS, SECS, STEPS; the load generator's README names the others. Figures go to bench-results/.
set -eu
cd "$(dirname "$0")/.."
BENCH_DIR=${BENCH_DIR:-../shared/bench}
[ -x "$BENCH_DIR/run_peers.sh" ] && [ -d "$BENCH_DIR/pushbench" ] || {
    echo "the load generator is not at $BENCH_DIR (run_peers.sh and pushbench/ are wanted there); set BENCH_DIR to where it is" >&2; exit 2; }
rounds=${REPS:-3}
export REPS=1 USERS=${USERS:-10000} SECS=${SECS:-6} STEPS=${STEPS:-idle targeted saturate broadcast api apisat storm}
export STORM_REPS=1
peers=()
if [ "${PEERS:-0}" = 1 ]; then
    scripts/install.sh peers
    peers=(node-socketio oxide-stock raw-floor)
fi

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
build() { # build <folder of the copy>: into a folder of its own there
    cargo build --release --quiet --manifest-path "$copy/$1/Cargo.toml" --target-dir "$copy/$1/target"
}
build pushbench
for peer in "${peers[@]}"; do
    echo "building $peer …" >&2
    if [ -f "$copy/peers/$peer/Cargo.toml" ]; then
        build "peers/$peer"
    else
        npm install --prefix "$copy/peers/$peer" --no-audit --no-fund --silent
    fi
done

# PostgreSQL runs as another user there, so the data must be where that user can reach it.
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/bellhop-bench.XXXXXX")
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 711 "$TMPDIR"
export TMPDIR

results=$PWD/bench-results
rm -rf "$results"
mkdir -p "$results"
failed=
measure() { # measure <peer> <round>: one round, and where its figures are kept
    local own=$TMPDIR/$1 kept=$results/$1
    echo "round $2 of $rounds: $1 …" >&2
    # Bellhop's own are always written there.
    [ "$1" != bellhop ] || own=$PWD/$copy/results/bellhop
    rm -rf "$own"
    OUT=$own "$copy/run_peers.sh" "$1" >"$TMPDIR/log" 2>&1 || { tail -n 20 "$TMPDIR/log" >&2; exit 1; }
    if grep '^FAILED' "$TMPDIR/log" >&2; then failed=yes; fi
    mkdir -p "$kept"
    for file in "$own"/*-1.*; do
        cp "$file" "$kept/$(basename "$file" | sed "s/-1\./-$2./")"
    done
}
# Side by side in each round, so that a machine that is slower for a while is so for all.
for round in $(seq "$rounds"); do
    for peer in bellhop "${peers[@]}"; do measure "$peer" "$round"; done
done

columns=()
for peer in bellhop "${peers[@]}"; do columns+=("$results/$peer"); done
{
    echo "$(date +%F), $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $USERS sockets, medians of $rounds"
    echo
    python3 "$copy/summarize.py" "${columns[@]}"
    echo
    PUSHBENCH_BIN=$copy/pushbench/target/release/pushbench scripts/budget.sh
} | tee "$results/figures.txt"
[ -z "$failed" ]
