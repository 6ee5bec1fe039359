#!/bin/sh
# Everything that can be checked without running the system, in the order in which it fails fastest; run it before you push.
set -eu
cd "$(dirname "$0")/.."
cargo fmt --all --check
sh .ci/layers.sh
cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
# Private items are documented too, so links to them are not broken.
RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --quiet --no-deps --document-private-items --locked
if command -v cargo-deny >/dev/null 2>&1; then
    cargo deny check --config .ci/deny.toml bans licenses sources
else
    echo "skipped: licences and sources (cargo install cargo-deny --locked brings the check)"
fi
