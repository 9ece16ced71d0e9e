#!/bin/bash
# Installs the Debian packages that a make target needs, saying which; silent when nothing is missing.
#   packaging/needs.sh PACKAGE...
# Asks dpkg, so a second run costs milliseconds. On other systems it names the packages and goes on:
# the command that misses one says so itself.
set -euo pipefail

if ! command -v dpkg-query >/dev/null; then
    echo "not a Debian system; this target expects what Debian calls: $*" >&2
    exit 0
fi

missing=()
for package in "$@"; do
    [[ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)" == ii* ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

root=()
if ((EUID != 0)); then
    command -v sudo >/dev/null || {
        echo "as root, run: apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 69
    }
    root=(sudo)
fi
echo "installing Debian packages: ${missing[*]}"
install=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}")
# Old lists name files that are gone: ask for fresh ones only when the first attempt says so.
"${install[@]}" >/dev/null 2>&1 || { "${root[@]}" apt-get update -qq && "${install[@]}" >/dev/null; }
