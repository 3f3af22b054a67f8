# shellcheck shell=bash
# Source this (after env.sh and pythons.sh) for run_sanity: ansible-test without containers, and without any download
# but from the package index.

# Puts a copy of what git would commit where ansible-test wants it: in a real folder of the collection's name that is
# the root of a git repository (it would take the ignored .cache around it for "nothing to test").
copy_checkout() {
    local copy=$1 file
    rm -rf "$copy"
    mkdir -p "$copy"
    git -C "$DBFLEET_ROOT" ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do
            [ ! -e "$DBFLEET_ROOT/$file" ] || printf '%s\0' "$file"
        done | tar -C "$DBFLEET_ROOT" --null --files-from=- --create | tar -C "$copy" --extract
    git -C "$copy" init --quiet
}

# The commands that ansible-test looks for: every real Python of the machine. (pyenv's shims break its compile test.)
link_pythons() {
    local directory=$1 version path
    rm -rf "$directory"
    mkdir -p "$directory"
    while read -r version path; do
        ln -s "$path" "$directory/python$version"
    done < <(list_pythons)
}

# ansible-test clears the environment before it calls pip, so pip's settings must be in a file of the private home.
keep_pip_settings() {
    local python=$1 directory=$HOME/.config/pip
    mkdir -p "$directory"
    HOME=$DBFLEET_USER_HOME "$python" -m pip config list | "$python" -c '
import ast, sys

settings = {}
for line in sys.stdin:
    # The environment comes first in this list, and wins.
    name, _, value = line.rstrip().partition("=")
    settings.setdefault(name.rpartition(".")[2], ast.literal_eval(value))
print("[global]")
for name, value in settings.items():
    print(name, "=", value.replace("\n", "\n  "))' >"$directory/pip.conf.new"
    mv -f "$directory/pip.conf.new" "$directory/pip.conf"
}

# ansible-test would download a get-pip script for its pip release; ours installs the wheel from the package index.
provide_get_pip() {
    local python=$1 cache=$HOME/.ansible/test/cache release
    release=$("$python" - <<'END'
import inspect, re
from ansible_test._internal.python_requirements import get_venv_packages

print(re.search(r"pip='([0-9.]+)'", inspect.getsource(get_venv_packages)).group(1))
END
    )
    mkdir -p "$cache"
    [ -e "$cache/pip-$release-py3-none-any.whl" ] ||
        HOME=$DBFLEET_USER_HOME "$python" -m pip download --quiet --quiet --no-deps --dest "$cache" "pip==$release"
    cp "$DBFLEET_ROOT/tests/support/get_pip.py" "$cache/get_pip_${release//./_}.py"
}

# What depends on the core release: how it loads modules, checks their documentation and reads the runtime metadata.
core_sanity_tests=(ansible-doc compile import runtime-metadata validate-modules)

# Prints the oldest Python of the machine of those that database hosts may have.
oldest_host_python() {
    list_pythons | cut -d ' ' -f 1 | grep -E '^3\.(9|[1-9][0-9])$' | sort -V | head -n 1
}

# run_sanity SERIES VERSION [all]: what depends on the core release, with one Python version; or all tests, and whether
# everything compiles and can be imported on the oldest Python as well (those in between come with the other cores).
run_sanity() {
    local series=$1 version=$2 which=${3:-core} oldest
    local copy=$DBFLEET_CACHE/sanity/ansible_collections/dbfleet/audit python=$DBFLEET_CACHE/venv/$series/bin/python
    local options=(--color no --python "$version")
    if [ "$which" = core ]; then
        local test
        for test in "${core_sanity_tests[@]}"; do
            options+=(--test "$test")
        done
    fi
    copy_checkout "$copy"
    link_pythons "$DBFLEET_CACHE/pythons"
    keep_pip_settings "$python"
    provide_get_pip "$python"
    cd "$copy" || return
    local PATH=$DBFLEET_CACHE/venv/$series/bin:$DBFLEET_CACHE/pythons:$PATH
    ansible-test sanity "${options[@]}"
    oldest=$(oldest_host_python)
    [ "$which" = core ] || [ "$oldest" = "$version" ] ||
        ansible-test sanity --color no --python "$oldest" --test compile --test import
}
