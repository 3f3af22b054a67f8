# shellcheck shell=bash
# Source this for install_packages: the Debian or Ubuntu packages that a target needs, and only those that are missing.

# Prints the missing packages of a target. What counts is that the program is there, however it came.
missing_packages() {
    local target=$1 bin
    [ -n "$(list_cores "$DBFLEET_ROOT/tests/ansible-core.txt")" ] || echo python3-venv
    bin=$(newest_postgresql)
    if [ -z "$bin" ]; then
        echo postgresql
        echo pgaudit
    else
        [ -e "$(postgresql_libraries)/pgaudit.so" ] || echo pgaudit
    fi
    if [ "$target" = tests ] || [ "$target" = overhead ]; then
        [ -n "$bin" ] && [ -e "$(postgresql_libraries)/table_log.so" ] || echo tablelog
    fi
    if [ "$target" = tests ] || [ "$target" = demo ] || [ "$target" = overhead ]; then
        mysql_server >/dev/null || echo mariadb-server
    fi
    if [ "$target" = tests ]; then
        PATH=$PATH:/usr/sbin:/usr/local/sbin type -P pgbouncer >/dev/null || echo pgbouncer
        # Of the report's page. Ubuntu has it as a snap only; there, who has no Chromium does without these tests.
        if [ -z "$(type -P chromium chromium-browser google-chrome)" ] && grep -qs '^ID=debian' /etc/os-release; then
            echo chromium
            echo fonts-liberation
        fi
    fi
    if [ "$target" = thorough ]; then
        # Of Spark.
        type -P java >/dev/null || echo default-jre-headless
    fi
    if [ "$target" = demo ] || [ "$target" = overhead ]; then
        type -P sysbench >/dev/null || echo sysbench
    fi
    if [ "$target" = tests ] || [ "$target" = molecule ]; then
        type -P git >/dev/null || echo git
        type -P shellcheck >/dev/null || echo shellcheck
    fi
    if [ "$target" = molecule ]; then
        missing_for_containers
    fi
}

# Prints what tests/support/containers.py lacks.
missing_for_containers() {
    # Programs of root's are not on everybody's path.
    local program PATH=$PATH:/usr/sbin:/sbin
    for program in podman runc mmdebstrap iptables; do
        type -P "$program" >/dev/null || echo "$program"
    done
    type -P ssh >/dev/null || echo openssh-client
    type -P ip >/dev/null || echo iproute2
    # Of podman's two network stacks the older one works with iptables alone.
    [ -e /usr/lib/cni/bridge ] || type -P nft >/dev/null || echo nftables
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring
}

postgresql_libraries() {
    local bin
    bin=$(newest_postgresql)
    "$bin/pg_config" --pkglibdir 2>/dev/null || echo "${bin%/bin}/lib"
}

newest_postgresql() {
    # shellcheck disable=SC2012 # names of this directory are numbers
    ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1
}

# Prints the path of a MariaDB or MySQL server program; fails when there is none.
mysql_server() {
    # Programs of servers are not on everybody's path; these are the places of Debian's, Red Hat's and Oracle's packages.
    local PATH=$PATH:/usr/sbin:/usr/local/sbin:/usr/libexec:/usr/local/mysql/bin
    type -P mariadbd || type -P mysqld
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif type -P sudo >/dev/null; then
        sudo "$@"
    else
        die "must be root (or have sudo) to run: $*"
    fi
}

apt_get() {
    # A machine's other services are not ours to restart, nor its other packages to upgrade.
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -qq -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 "$@" >>"$DBFLEET_CACHE/apt.log" 2>&1 9>&- </dev/null ||
        die "apt-get $1 failed: $(tail -n 5 "$DBFLEET_CACHE/apt.log")"
}

# The server package would make and start a cluster 'main'; this machine gets programs, no running server.
without_a_cluster() {
    local directory=/etc/postgresql-common/createcluster.d
    local snippet=$directory/dbfleet-audit-setup.conf status=0
    as_root mkdir -p "$directory"
    echo 'create_main_cluster = false' | as_root tee "$snippet" >/dev/null
    ("$@") || status=$?
    as_root rm -f "$snippet"
    return "$status"
}

# without_services "NAME..." COMMAND...: the packages of some would start a service, now and after every boot. Nobody
# asked for the one, nor for the other.
without_services() {
    local services=$1 status=0 service
    shift
    [ -n "$services" ] || { "$@"; return; }
    if ! policy_denies "$services"; then
        lay_policy_aside
        as_root tee "$POLICY" <<<"#!/bin/sh
# $POLICY_MARK
case \$* in *mariadb* | *mysql* | *pgbouncer*) exit 101 ;; esac
[ ! -x $POLICY_ASIDE ] || exec $POLICY_ASIDE \"\$@\"" >/dev/null
        as_root chmod 755 "$POLICY"
    fi
    # Its trap puts the machine's policy back when this script is interrupted, or when apt_get gives up.
    (
        trap restore_policy EXIT
        trap 'exit 130' INT TERM HUP
        "$@"
    ) || status=$?
    for service in $services; do
        # What starts services at boot need not run at this moment for this, nor be systemd.
        if type -P systemctl >/dev/null; then
            as_root systemctl --quiet disable "$service.service" >>"$DBFLEET_CACHE/apt.log" 2>&1 || true
        fi
        as_root update-rc.d "$service" disable >>"$DBFLEET_CACHE/apt.log" 2>&1 || true
    done
    return "$status"
}

# /usr/sbin/policy-rc.d is how Debian's packages ask whether they may start a service, whatever starts services here.
POLICY=/usr/sbin/policy-rc.d
POLICY_ASIDE=$POLICY.before-dbfleet-audit
POLICY_MARK="Of the set-up of dbfleet.audit, until its installation is done."

policy_denies() {
    local service status
    [ -x "$POLICY" ] || return 1
    for service in $1; do
        status=0
        "$POLICY" "$service" start >/dev/null 2>&1 </dev/null || status=$?
        [ "$status" = 101 ] || return 1
    done
}

lay_policy_aside() {
    [ ! -e "$POLICY" ] || as_root mv "$POLICY" "$POLICY_ASIDE"
}

# Also after a set-up that was killed before it could do this.
restore_policy() {
    if grep -qsF "$POLICY_MARK" "$POLICY"; then
        as_root rm "$POLICY"
    fi
    [ ! -e "$POLICY_ASIDE" ] || as_root mv "$POLICY_ASIDE" "$POLICY"
}

install_packages() {
    local wanted services="" tablelog
    restore_policy
    wanted=$(missing_packages "$1" | sort -u | tr '\n' ' ')
    [ -n "$wanted" ] || return 0
    type -P apt-get >/dev/null || die "missing here: $wanted(set-up installs packages on Debian and Ubuntu only)"
    say "installing ${wanted% } with apt-get (log: .cache/apt.log)"
    apt_get update
    if [[ $wanted == *pgaudit* ]]; then
        wanted=${wanted/pgaudit/postgresql-$(postgresql_major)-pgaudit}
    fi
    if [[ $wanted == *tablelog* ]]; then
        # Not every release of PostgreSQL has it; the benchmark and the test then say so.
        tablelog=postgresql-$(postgresql_major)-tablelog
        apt-cache show "$tablelog" >/dev/null 2>&1 || tablelog=""
        wanted=${wanted/tablelog/$tablelog}
        [ -n "${wanted// /}" ] || return 0
    fi
    [[ $wanted != *mariadb-server* ]] || services=mariadb
    [[ $wanted != *pgbouncer* ]] || services="$services pgbouncer"
    # shellcheck disable=SC2086 # a list of names
    without_a_cluster without_services "$services" apt_get install --no-install-recommends --no-upgrade $wanted
}

# Prints the major version whose programs are here, or would be after the installation of 'postgresql'.
postgresql_major() {
    local bin
    bin=$(newest_postgresql)
    if [ -n "$bin" ]; then
        basename "${bin%/bin}"
    else
        apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1
    fi
}
