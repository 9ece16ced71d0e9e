#!/bin/bash
# Prints the Debian mirror that this machine uses. The repository names none.
set -euo pipefail

shopt -s nullglob
for list in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list.d/*.sources; do
    mirror=$(awk '/^URIs:/ && $2 ~ /\/debian\/?$/ {print $2; exit}' "$list")
    [[ -z $mirror ]] || { echo "$mirror"; exit 0; }
done
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    mirror=$(sed 's/\[[^]]*\]//' "$list" | awk '$1 == "deb" && $2 ~ /\/debian\/?$/ {print $2; exit}')
    [[ -z $mirror ]] || { echo "$mirror"; exit 0; }
done
echo "no Debian mirror found in /etc/apt" >&2
exit 69
