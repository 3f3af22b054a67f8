#!/bin/sh
# Records of several lines, of a byte that is not UTF-8, and of JSON, whole and broken.
set -eu
tr @ '\351' >>/var/log/samples/sample.csv <<'CSV'
2026-11-22 10:00:00.000 UTC,"ann","shop",1,,"SELECT 'one

	three ""quoted"" caf@'",
2026-11-22 10:00:01.000 UTC,"bob","shop",2,,,
CSV
cat >>/var/log/samples/sample.json <<'JSON'
{"user":"ann","message":"SELECT 'one\n\n\tthree \"quoted\"'","pid":7}
{"user":"ann","message":"cut off
JSON
