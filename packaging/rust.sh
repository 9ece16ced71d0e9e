#!/bin/bash
# Says what to do when Rust is missing or older than the workspace's rust-version.
#   packaging/rust.sh [COMPONENT...]      components: rustfmt clippy
set -euo pipefail

cargo=$(command -v cargo || true)
# rustup's folder is often not on the path of a fresh shell.
[[ -n $cargo || ! -x $HOME/.cargo/bin/cargo ]] || {
    echo "cargo is in $HOME/.cargo/bin, which is not on the path: run . $HOME/.cargo/env" >&2
    exit 69
}
[[ -n $cargo ]] || {
    echo "Rust is missing: install it with rustup, then run this again" >&2
    exit 69
}
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
have=$(cargo --version | awk '{print $2}')
[[ $(printf '%s\n' "$wanted" "$have" | sort -V | head -1) == "$wanted" ]] || {
    echo "Rust $have is too old, fieldspool needs $wanted: run rustup update stable" >&2
    exit 69
}
for component in "$@"; do
    case $component in
    rustfmt) cargo fmt --version >/dev/null 2>&1 ;;
    clippy) cargo clippy --version >/dev/null 2>&1 ;;
    esac || rustup component add "$component"
done
