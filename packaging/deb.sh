#!/bin/bash
# Makes dist/fieldspool_VERSION_ARCH.deb: builds, runs the binary once (ARM under qemu-user), generates man page and
# completions with it, packs, and asks lintian.
#   packaging/deb.sh amd64|arm64|armhf
set -euo pipefail

arch=$1
binary=$(packaging/build.sh "$arch")
triple=$(basename "$(dirname "$(dirname "$binary")")")
packaging/needs.sh lintian jq
cargo deb --version >/dev/null 2>&1 || {
    echo "installing cargo-deb"
    cargo install cargo-deb --locked --quiet
}

run=("$binary")
if [[ $arch != "$(dpkg --print-architecture)" ]]; then
    packaging/needs.sh qemu-user-static
    case $arch in arm64) emulator=qemu-aarch64-static ;; armhf) emulator=qemu-arm-static ;; *) emulator=qemu-x86_64-static ;; esac
    run=("$emulator" -L "$(packaging/sysroot.sh "$arch")" "$binary")
fi
"${run[@]}" --version

generated=$(dirname "$binary")/generated
mkdir -p "$generated"
"${run[@]}" man | gzip -9n >"$generated/fieldspool.8.gz"
for shell in bash zsh fish; do
    "${run[@]}" completions "$shell" >"$generated/fieldspool.$shell"
done
packaging/notices.sh "$triple" | gzip -9n >"$generated/third-party.txt.gz"

# The one example without certificates, which are missing here; its ports are missing too, a warning. The tests
# check the others.
"${run[@]}" check config/examples/serial-line.toml

mkdir -p dist
cargo deb --quiet --package fieldspool --target "$triple" --no-build --no-strip --no-dbgsym --output dist/
package=$(echo dist/fieldspool_*_"$arch".deb)
lintian --fail-on error "$package"
ls -l "$package"
