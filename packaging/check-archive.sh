#!/bin/bash
# Checks the product from the source archive in dist/ alone: with a cargo home that is empty and without network, as a build of Yocto does.
set -euo pipefail

packaging/rust.sh
packaging/needs.sh gcc libc6-dev pkg-config libsystemd-dev xz-utils util-linux
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -C "$work" -xJf "dist/fieldspool-$version.tar.xz"
cd "$work/fieldspool-$version"
CARGO_HOME=$work/home CARGO_TARGET_DIR=$work/target unshare --map-root-user --net \
    cargo check --quiet --frozen --package fieldspool --no-default-features --features systemd
