#!/bin/sh
# Installs the Debian packages that a purpose needs and the machine lacks: install.sh build | services | balancer | clients …
set -eu
PATH=$PATH:/usr/sbin:/sbin
missing=

need() { # need <command> <package>: the package is missing when its command is
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
require() { # require <command> <what to do>: for what no package should bring
    command -v "$1" >/dev/null 2>&1 || { echo "$1 is missing: $2" >&2; exit 1; }
}

for purpose in "$@"; do
    case $purpose in
    build)
        require cargo "install Rust, see https://rustup.rs"
        need cc build-essential
        need cmake cmake ;;
    services)
        need redis-server redis-server
        need redis-cli redis-tools
        need psql postgresql-client
        ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql" ;;
    balancer)
        need haproxy haproxy
        need curl curl ;;
    clients)
        require node "install Node.js 20 or later, see https://nodejs.org"
        require npm "install it beside Node.js"
        need curl curl ;;
    *)
        echo "install.sh: no purpose named $purpose" >&2; exit 2 ;;
    esac
done
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null 2>&1 || {
    echo "missing:$missing (Debian's names); install them with this system's package manager, then try again" >&2; exit 1; }
as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "missing:$missing; as root: apt-get install$missing" >&2; exit 1; }
    as_root=sudo
fi

echo "installing$missing …" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@" >>"$log" 2>&1; }
# shellcheck disable=SC2086 # a list of names
{ apt update && apt install -y --no-install-recommends $missing; } || { tail -n 20 "$log" >&2; exit 1; }
