#!/bin/bash
# Runs a command with a real Redis and a real PostgreSQL beside it (TEST_REDIS_URL, TEST_POSTGRES_URL, and a second Redis in TEST_SECOND_REDIS_URL), and stops both when it ends.
set -eu
[ $# -gt 0 ] || { echo "usage: with-services.sh <command…>" >&2; exit 2; }
here=$(dirname "$0")
"$here/install.sh" services
# shellcheck source=scripts/services.sh
. "$here/services.sh"

trap stop_services EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start_redis second_redis
export TEST_SECOND_REDIS_URL=redis://127.0.0.1:$redis_port
start_redis
# Without fsync, because nothing here outlives the run: the tests kill nodes and cut connections, never the machine's power.
start_postgres -c max_connections=300 -c fsync=off -c synchronous_commit=off -c full_page_writes=off

export TEST_REDIS_URL=redis://127.0.0.1:$redis_port TEST_POSTGRES_URL=$postgres_url
"$@"
