#!/bin/bash
# Lets the official Socket.IO clients, JavaScript, Python and Java, judge real nodes (tests/clients); wants TEST_REDIS_URL and TEST_POSTGRES_URL, as with-services.sh gives them.
set -eu
cd "$(dirname "$0")/.."
scripts/install.sh clients
cargo build --quiet --locked
BELLHOP_BIN=$(realpath "${CARGO_TARGET_DIR:-target}/debug/bellhop")
export BELLHOP_BIN

cd tests/clients
reporter=spec
[ -z "${CI:-}" ] || reporter=tap
[ $# -gt 0 ] || set -- ./*.test.mjs
node --test --test-reporter="$reporter" --test-timeout=180000 "$@"
