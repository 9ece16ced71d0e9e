#!/bin/bash
# Runs one stage of a make target and prints how long it took.
#   packaging/stage.sh NAME COMMAND [ARGUMENT...]
set -uo pipefail

name=$1
shift
printf '\n-- %s\n' "$name"
"$@"
code=$?
verdict=ok
((code == 0)) || verdict="FAILED with $code"
printf -- '-- %-28s %4d s  %s\n' "$name" "$SECONDS" "$verdict"
exit "$code"
