#!/bin/bash
# Prints the folder that holds Debian 12's C library and libsystemd for one architecture, and makes it when missing.
#   packaging/sysroot.sh amd64|arm64|armhf
# Packages are only unpacked, nothing in them runs, so any architecture does. What is linked against this folder runs
# on Debian 12 and everything newer, whatever the machine that built it.
set -euo pipefail

arch=$1
suite=bookworm
root=${XDG_CACHE_HOME:-$HOME/.cache}/fieldspool/sysroot-$suite-$arch

if [[ ! -e $root.complete ]]; then
    packaging/needs.sh mmdebstrap debian-archive-keyring >&2
    echo "unpacking Debian's $suite libraries for $arch" >&2
    # Whatever mirror this machine uses.
    mirror=$(packaging/mirror.sh)
    rm -rf "$root"
    mkdir -p "$(dirname "$root")"
    mmdebstrap --quiet --variant=extract --arch="$arch" \
        --include=libc6-dev,libgcc-12-dev,linux-libc-dev,libsystemd-dev,libsystemd0 \
        "$suite" "$root" "deb $mirror $suite main" >&2
    # Absolute links would lead out of the folder, into the libraries of this machine.
    find "$root" -lname '/*' -path '*/lib*/*' -print0 | while IFS= read -r -d '' link; do
        ln -snf "$(realpath -m --relative-to="$(dirname "$link")" "$root$(readlink "$link")")" "$link"
    done
    touch "$root.complete"
fi
echo "$root"
