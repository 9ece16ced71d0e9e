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
    case $arch in
    arm64) emulator=qemu-aarch64-static multiarch=aarch64-linux-gnu ;;
    armhf) emulator=qemu-arm-static multiarch=arm-linux-gnueabihf ;;
    *) emulator=qemu-x86_64-static multiarch=x86_64-linux-gnu ;;
    esac
    root=$(packaging/sysroot.sh "$arch")
    # Named in full: not every version of qemu-user leads the loader's look at a folder into the other root.
    libraries=$root/lib/$multiarch:$root/usr/lib/$multiarch
    run=("$emulator" -E "LD_LIBRARY_PATH=$libraries" -L "$root" "$binary")
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
