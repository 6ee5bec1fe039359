#!/bin/sh
# Each dependency is known to the files named here and to no other: the arrows of src/lib.rs, enforced, and two habits with them.
set -eu
cd "$(dirname "$0")/.."
fail=0

only() { # only <crate> <extended regex of the paths that may name it>
    strangers=$(grep -rlE "(^|[^A-Za-z0-9_])$1(::|;)" src --include='*.rs' | grep -vE "$2" || true)
    [ -z "$strangers" ] || { echo "$1 must stay out of: $strangers"; fail=1; }
}
only sqlx         '^src/store(/|\.rs$)'
only fred         '^src/bus(/|\.rs$)'
only socketioxide '^src/(hub|session|node)(/|\.rs$)'
only engineioxide '^src/node(/|\.rs$)'
only tokio_rustls '^src/bus(/|\.rs$)'
only httparse     '^src/front(/|\.rs$)'
only axum         '^src/(api|node)(/|\.rs$)'
only jsonwebtoken '^src/auth(/|\.rs$)'
only 'utoipa[a-z_]*' '^src/api(/|\.rs$)'
only 'std::env'   '^src/(config|main)(/|\.rs$)'

# Who joins and who emits cannot disagree about the room.
room=$(grep -rn '"user:' src --include='*.rs' | grep -cvE 'assert|:[0-9]+: *//' || true)
[ "$room" -eq 1 ] || { echo "the room name is spelled $room times; want 1 (src/user.rs)"; fail=1; }

# A test waits for an event. A bounded poll, or a deadline, says so on its line.
sleeps=$(grep -rnE '\b(sleep|setTimeout)\(' tests --include='*.rs' --include='*.mjs' --exclude-dir=node_modules | grep -v '// bounded: ' || true)
[ -z "$sleeps" ] || { echo "a test sleeps; wait for the event, or end the line with '// bounded: <why>':"; echo "$sleeps"; fail=1; }

# Each file opens with one sentence of purpose.
silent=$(find src tests faults scripts .ci -name node_modules -prune -o \( -name '*.rs' -o -name '*.sh' -o -name '*.mjs' -o -path .ci/run \) -print |
    while read -r file; do head -n 3 "$file" | grep -qE '^(//!|//|#) [A-Z`].{20,}' || echo "$file"; done)
[ -z "$silent" ] || { echo "no sentence of purpose opens: $silent"; fail=1; }
exit $fail
