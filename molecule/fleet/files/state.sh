#!/bin/sh
# All of a host that auditing might touch, as text, a line each with where it is.
#   CLUSTERS="VERSION:NAME:PORT ..."   the PostgreSQL clusters
#   MYSQL=CLIENT                       the client of MariaDB or MySQL
set -eu
cd /

labelled() {
  sed "s|^|$1: |"
}

# Every dump has a key of its own.
without_key() {
  grep -vE '^\\(un)?restrict '
}

dpkg-query --show --showformat='${Package}\n' | labelled package
getent passwd | labelled account
getent group | labelled group
systemctl list-unit-files --no-legend --no-pager | tr -s ' ' | labelled unit
# Neither what systemd and sudo note of themselves, nor Ansible of its runs.
find /etc /usr/local /opt /root /home /var/lib/systemd /var/spool /var/lib/postgresql /var/lib/rsyslog /usr/lib/systemd/system \
  \( -name .ansible -o -path '/var/lib/postgresql/*/*/*' -o -path '*/systemd/random-seed' -o -name ld.so.cache \
     -o -path /var/lib/systemd/timers -a -empty -o -name .sudo_as_admin_successful \) -prune -o \( -type f -exec sha256sum {} + \) -o -print 2>/dev/null |
  sort -k 2 | labelled file

for cluster in ${CLUSTERS:-}; do
  version=${cluster%%:*} port=${cluster##*:} name=${cluster#*:}
  name=${name%%:*}
  as_postgres() {
    program=$1
    shift
    runuser -u postgres -- "$program" --port="$port" "$@"
  }
  labelled "$port postgresql.auto.conf" <"/var/lib/postgresql/$version/$name/postgresql.auto.conf"
  as_postgres psql --no-psqlrc --tuples-only --no-align postgres --command="
    SELECT name, setting, source FROM pg_settings WHERE source <> 'default' ORDER BY 1" | labelled "$port setting"
  as_postgres pg_dumpall --globals-only | without_key | labelled "$port global"
  for database in $(as_postgres psql --no-psqlrc --tuples-only --no-align postgres --command="
      SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1"); do
    as_postgres pg_dump --schema-only --create "$database" | without_key | labelled "$port $database"
  done
done

if [ -n "${MYSQL:-}" ]; then
  for database in $($MYSQL -e 'SHOW DATABASES'); do
    case $database in information_schema | performance_schema | mysql | sys) continue ;; esac
    mysqldump --no-data --routines --events --triggers --skip-dump-date --databases "$database" 2>/dev/null |
      sed -E 's/ AUTO_INCREMENT=[0-9]+//; /GTID_PURGED/d' | labelled "database $database"
  done
  $MYSQL -e "SELECT CONCAT('SHOW GRANTS FOR ', QUOTE(user), '@', QUOTE(host), ';') FROM mysql.user WHERE user <> ''" |
    $MYSQL --force 2>/dev/null | labelled grant
  for rights in db tables_priv columns_priv procs_priv; do
    $MYSQL -e "SELECT * FROM mysql.$rights" | sed -E 's/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}//' | labelled "mysql.$rights"
  done
  $MYSQL -e 'SHOW GLOBAL VARIABLES' | grep -vE '^(gtid_|timestamp|innodb_lru|report_|rpl_)' | labelled variable
  $MYSQL -e 'SHOW PLUGINS' | labelled plugin
fi
