#!/bin/sh
# Installs what a purpose needs and the machine lacks, Debian packages and libraries of clients: install.sh build | services | bench | peers | faults | balancer | clients | schemathesis …
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
missing= clients= schemathesis=
log=$(mktemp)
trap 'rm -f "$log"' EXIT

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
        need openssl openssl
        ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql" ;;
    bench)
        need strace strace
        need valgrind valgrind
        need curl curl
        need python3 python3 ;;
    peers)
        require node "install Node.js 20 or later, see https://nodejs.org"
        require npm "install it beside Node.js" ;;
    faults)
        ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing faketime" ;;
    balancer)
        need haproxy haproxy
        need curl curl ;;
    clients)
        require node "install Node.js 20 or later, see https://nodejs.org"
        require npm "install it beside Node.js"
        need curl curl
        need javac default-jdk-headless
        need mvn maven
        python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
        clients=yes ;;
    schemathesis)
        need curl curl
        python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
        schemathesis=yes ;;
    *)
        echo "install.sh: no purpose named $purpose" >&2; exit 2 ;;
    esac
done
quietly() { # quietly <command…>: its output is shown when it fails
    "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
}

install_packages() {
    command -v apt-get >/dev/null 2>&1 || {
        echo "missing:$missing (Debian's names); install them with this system's package manager, then try again" >&2; exit 1; }
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || { echo "missing:$missing; as root: apt-get install$missing" >&2; exit 1; }
        as_root=sudo
    fi
    echo "installing$missing …" >&2
    apt update
    # shellcheck disable=SC2086 # a list of names
    apt install -y --no-install-recommends $missing
}
apt() { quietly $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@"; }

fetch_python() { # fetch_python <from> <into> <what>: what the requirements of one folder pin, into the venv of another
    mkdir -p "$2"
    cmp -s "$1/requirements.txt" "$2/venv/requirements.txt" || {
        echo "fetching $3 …" >&2
        quietly python3 -m venv --clear "$2/venv"
        quietly "$2/venv/bin/pip" install --disable-pip-version-check --only-binary :all: -r "$1/requirements.txt"
        cp "$1/requirements.txt" "$2/venv/"
    }
}

# Each is fetched once, and again when the file that pins it has changed; what is tried is then there without a network.
fetch_clients() {
    into=$PWD/target/clients
    from=$PWD/tests/clients
    mkdir -p "$into"
    [ "$from/node_modules/.package-lock.json" -nt "$from/package-lock.json" ] || {
        echo "fetching the JavaScript client …" >&2
        quietly npm --prefix "$from" ci --no-audit --no-fund
    }
    fetch_python "$from" "$into" "the Python client"
    cmp -s "$from/pom.xml" "$into/java/pom.xml" || {
        echo "fetching the Java client …" >&2
        rm -rf "$into/java"
        quietly mvn --batch-mode --strict-checksums --file "$from/pom.xml" dependency:copy-dependencies -DoutputDirectory="$into/java"
        cp "$from/pom.xml" "$into/java/"
    }
}

[ -z "$missing" ] || install_packages
[ -z "$clients" ] || fetch_clients
[ -z "$schemathesis" ] || fetch_python "$PWD/tests/schemathesis" "$PWD/target/schemathesis" Schemathesis
