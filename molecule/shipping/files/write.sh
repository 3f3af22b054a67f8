#!/bin/sh
# write.sh NAME LAST PAUSE CLIENT...: has a server log the statements 'numbered NAME 1' to 'numbered NAME LAST'.
set -eu
name=$1 last=$2 pause=$3
shift 3
number=0
while [ "$number" -lt "$last" ]; do
    number=$((number + 1))
    # Over two lines, the second of which must stay with the first.
    printf 'SELECT\n%s;\n' "'numbered $name $number'"
    sleep "$pause"
done | "$@" >/dev/null
