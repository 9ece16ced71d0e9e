#!/bin/bash
# The unit as shipped: systemd accepts every line, and the sandbox has not become wider.
set -euo pipefail

# `verify` looks for the commands that the unit starts: give it a root in which they exist.
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,usr/bin,usr/lib/systemd/system,etc}
cp systemd/fieldspool.service "$root/usr/lib/systemd/system/"
cp /usr/lib/systemd/system/{sysinit,basic,multi-user,shutdown,network,umount}.target \
    /usr/lib/systemd/system/{modprobe@,systemd-journald}.service \
    /usr/lib/systemd/system/{-,system}.slice "$root/usr/lib/systemd/system/" 2>/dev/null || true
touch "$root/usr/bin/fieldspool" "$root/bin/sh"
chmod +x "$root/usr/bin/fieldspool" "$root/bin/sh"

said=$(systemd-analyze verify --root="$root" --man=no fieldspool.service 2>&1) || { echo "$said"; exit 1; }
if grep -q 'fieldspool\.service' <<<"$said"; then
    echo "$said"
    exit 1
fi
systemd-analyze security --offline=true --threshold=13 systemd/fieldspool.service | tail -1
