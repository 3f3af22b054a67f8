# shellcheck shell=bash
# Source this to find the Pythons of the machine and what they can run.

# Prints "X.Y /path/to/the/real/python" for every Python that can make virtual environments; of a version found twice,
# the first. A candidate may be a script that leads nowhere: only what runs, and says itself where it is, counts.
list_pythons() {
    local candidate
    local -A seen=()
    while read -r candidate; do
        local answer
        answer=$("$candidate" -I -c '
import os, sys
import ensurepip, ssl, venv
if sys.version_info.releaselevel == "final":
    print("%d.%d" % sys.version_info[:2], os.path.realpath(sys.executable))' 2>/dev/null </dev/null) || continue
        [ -n "$answer" ] || continue
        [ -z "${seen[${answer%% *}]:-}" ] || continue
        seen[${answer%% *}]=1
        echo "$answer"
    done < <(python_candidates)
}

python_candidates() {
    local version
    ls -d "${PYENV_ROOT:-${DBFLEET_USER_HOME:-$HOME}/.pyenv}"/versions/*/bin/python3 2>/dev/null || true
    # pyenv's shims stand for the versions that were listed already, and are slow.
    for version in 3.14 3.13 3.12 3.11 3.10 3.9 3; do
        type -aP "python$version" | grep -v /shims/ || true
    done
}

# Prints "SERIES RELEASE PYTHON" for every supported ansible-core that a Python of the machine can run, oldest first.
# Asking every Python takes a second, so the answer is kept for as long as the same ones are there.
list_cores() {
    local file=$1 kept=$DBFLEET_CACHE/cores key
    # Debian's Python gains the power to make environments when a package brings this folder.
    key="# $({ python_candidates; ls -d /usr/lib/python3*/ensurepip 2>/dev/null || true; cat "$file"; } | sha256sum)"
    if [ "$(head -n 1 "$kept" 2>/dev/null)" != "$key" ]; then
        { echo "$key"; find_cores "$file"; } >"$kept.new"
        mv "$kept.new" "$kept"
    fi
    tail -n +2 "$kept"
}

find_cores() {
    local file=$1 pythons series release supported version path
    pythons=$(list_pythons)
    while read -r series release supported; do
        [[ $series =~ ^[0-9] ]] || continue
        for version in $supported; do
            path=$(awk -v version="$version" '$1 == version { print $2; exit }' <<<"$pythons")
            if [ -n "$path" ]; then
                echo "$series $release $path"
                break
            fi
        done
    done <"$file"
}
