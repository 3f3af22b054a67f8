# shellcheck shell=bash
# Source this for the private environment of this checkout: a home, a collections path and tools of its own, so that
# what runs is this checkout and nothing is left in the user's home. tests/support/running.py is the same for tests.
#
#   source tests/support/env.sh [VENV]      # a name below .cache/venv, e.g. 2.21 or demo; none: PATH stays as it is

DBFLEET_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
DBFLEET_CACHE=$DBFLEET_ROOT/.cache
DBFLEET_USER_HOME=${DBFLEET_USER_HOME:-$HOME}
export DBFLEET_ROOT DBFLEET_CACHE DBFLEET_USER_HOME

# What a user's shell may have set for these programs must not decide what happens here.
# shellcheck disable=SC2086 # the names are to be split
unset ${!ANSIBLE_@} ${!MOLECULE_@} ${!PG@} ${!XDG_@} ${!PYTEST_@} PYTHONPATH PYTHONHOME VIRTUAL_ENV

export HOME=$DBFLEET_CACHE/home
export ANSIBLE_HOME=$HOME/.ansible
# Ansible looks for ~ in the account's entry, not in HOME, when it runs modules on this machine.
export ANSIBLE_REMOTE_TMP=$HOME/.ansible/tmp
export ANSIBLE_COLLECTIONS_PATH=$DBFLEET_CACHE/collections
export ANSIBLE_LOCALHOST_WARNING=0
export PIP_CACHE_DIR=$DBFLEET_CACHE/pip PIP_DISABLE_PIP_VERSION_CHECK=1
export LC_ALL=C.UTF-8
# A checkout that another account owns (CI, containers) is still one that git may read.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$DBFLEET_ROOT

if [ $# -gt 0 ]; then
    export PATH=$DBFLEET_CACHE/venv/$1/bin:$PATH
    export ANSIBLE_PYTHON_INTERPRETER=$DBFLEET_CACHE/venv/$1/bin/python
fi
