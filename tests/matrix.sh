#!/usr/bin/env bash
# The agent's tests on every other Python from 3.10 on this machine: with the oldest supported Celery on the oldest Python, with the
# newest Celery on each of the others. In real workers only on the oldest and the newest: what differs in between, the agent's own tests tell.
# Usage: matrix.sh VENV (the environment that has had its run already)
set -euo pipefail
cd "$(dirname "$0")/.."
done_with=$("$1/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

pythons() {
    local version candidate
    for version in 3.10 3.11 3.12 3.13 3.14; do
        for candidate in "$HOME/.pyenv/versions/$version".*/bin/python "python$version"; do
            if "$candidate" -c 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])' 2>/dev/null | grep -qx "$version"; then
                echo "$version $candidate"
                break
            fi
        done
    done
}

run() {
    local name=$1 python=$2 workers=$3
    shift 3
    local directory=.venvs/$name
    echo "== agent on $name"
    if [[ ! -e $directory/.ready ]]; then
        rm -rf "$directory"
        "$python" -m venv "$directory"
        "$directory/bin/pip" install --quiet --upgrade 'pip>=25.1'  # the first with dependency groups
        "$directory/bin/pip" install --quiet --editable . --group test "$@"
        touch "$directory/.ready"
    fi
    # Without those whose answer does not depend on the versions: they have had their run.
    "$directory/bin/pytest" --quiet --numprocesses 3 --dist worksteal tests/agent $workers -k "not broker_that_is_not_there \
        and not turned_off and not closes_the_agents_descriptors and not every_figure and not arguments_are_not"
}

in_workers=tests/integration/test_agent.py
found=$(pythons)
oldest=$(head -n 1 <<<"$found")
newest=$(tail -n 1 <<<"$found")
while read -r version python && [[ -n $version ]]; do
    case "$version $python" in
        "$oldest") run "python$version-celery5.3" "$python" "$in_workers" 'celery==5.3.*' ;;
        "$done_with "*) ;;
        "$newest") run "python$version-celery-newest" "$python" "$in_workers" ;;
        *) run "python$version-celery-newest" "$python" "" ;;
    esac </dev/null
done <<<"$found"
