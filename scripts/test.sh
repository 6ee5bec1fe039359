#!/bin/sh
# Runs every test: once on SQLite with a local bus, what depends on that again on PostgreSQL with Redis, then the official clients.
set -eu
cd "$(dirname "$0")/.."
TEST_STORE=sqlite cargo test --locked --workspace
echo "again, on PostgreSQL and Redis:"
TEST_STORE=postgres cargo test --locked --test it -- --skip store:: --skip bus:: --skip commands:: --skip agreement::
scripts/test-clients.sh
make --no-print-directory faults SHORT=1
