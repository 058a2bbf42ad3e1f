#!/usr/bin/env bash
# Puts in place what the tests stand on, and says what is missing where it may not.
#   prepare.sh venv PYTHON DIRECTORY   a virtual environment
#   prepare.sh servers                 Redis, RabbitMQ, Prometheus, Alertmanager, Chromium and more, from Debian's packages
#   prepare.sh models VENV             the official models of Grafana's dashboards, a release each
set -euo pipefail

install() {
    if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
        echo "Not root on a Debian: install these yourself for the full tests: $*" >&2
        return 1
    fi
    echo "Installing: $*"
    export DEBIAN_FRONTEND=noninteractive
    # No server is to start by itself: the tests start their own, on free ports.
    local policy=/usr/sbin/policy-rc.d made=
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        made=yes
    fi
    local status=0
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@" >/dev/null; } || status=$?
    [[ -z $made ]] || rm -f "$policy"
    return "$status"
}

venv() {
    local python=$1 directory=$2
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "$python is $("$python" --version 2>&1); Python 3.10 or later is needed: make PYTHON=python3.12 …" >&2
        exit 1
    fi
    if [[ ! -x $directory/bin/pip ]]; then
        if ! "$python" -m venv "$directory" 2>/dev/null; then
            rm -rf "$directory"
            install python3-venv
            "$python" -m venv "$directory"
        fi
    fi
    "$directory/bin/pip" install --quiet --upgrade 'pip>=25.1'  # the first with dependency groups
}

servers() {
    local missing=()
    command -v redis-server >/dev/null || missing+=(redis-server)
    [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || command -v rabbitmq-server >/dev/null || missing+=(rabbitmq-server)
    command -v promtool >/dev/null || missing+=(prometheus)
    command -v amtool >/dev/null || missing+=(prometheus-alertmanager)
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium fonts-dejavu-core)
    command -v systemd-analyze >/dev/null || missing+=(systemd)
    command -v hostname >/dev/null || missing+=(hostname)
    [[ ${#missing[@]} -eq 0 ]] && return
    # On a developer's laptop the tests that need them skip with a reason; in CI they fail.
    install "${missing[@]}" || [[ -z ${CI:-} ]]
}

# Folders of their own: releases of one package cannot be in one environment. The epoch tells releases of Grafana apart.
models() {
    local pair
    for pair in '10.4.0 1769699796!10.4.0' '11.6.0 1769699379!11.6.0' '12 0.0.21'; do
        local directory=.venvs/grafana/${pair% *}
        [[ -d $directory ]] && continue
        "$1/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || return 0  # they need 3.11
        "$1/bin/pip" install --quiet --no-deps --target "$directory.part" "grafana-foundation-sdk==${pair#* }"
        mv "$directory.part" "$directory"
    done
}

"$@"
