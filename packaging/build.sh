#!/bin/bash
# Builds the shipped binary for one Debian architecture, against Debian 12's libraries, and prints its path.
#   packaging/build.sh amd64|arm64|armhf
# clang and lld, not gcc: given a sysroot they look nowhere else, so this works alike on Debian 12, 13 and newer.
set -euo pipefail

arch=$1
case $arch in
amd64) triple=x86_64-unknown-linux-gnu multiarch=x86_64-linux-gnu ;;
arm64) triple=aarch64-unknown-linux-gnu multiarch=aarch64-linux-gnu ;;
armhf) triple=armv7-unknown-linux-gnueabihf multiarch=arm-linux-gnueabihf ;;
*)
    echo "unknown architecture $arch: amd64, arm64 or armhf" >&2
    exit 64
    ;;
esac

packaging/rust.sh >&2
packaging/needs.sh clang lld pkg-config binutils >&2
[[ -d $(rustc --print sysroot)/lib/rustlib/$triple ]] || rustup target add "$triple" >&2
root=$(packaging/sysroot.sh "$arch")

variable=${triple^^}
variable=${variable//-/_}
link="-Clink-arg=--target=$multiarch -Clink-arg=--sysroot=$root -Clink-arg=-fuse-ld=lld"
export "CARGO_TARGET_${variable}_LINKER=clang" "CARGO_TARGET_${variable}_RUSTFLAGS=$link"
export "CC_${triple//-/_}=clang" "AR_${triple//-/_}=ar" "CFLAGS_${triple//-/_}=--sysroot=$root"
export PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_SYSROOT_DIR="$root"
export PKG_CONFIG_LIBDIR="$root/usr/lib/$multiarch/pkgconfig:$root/usr/share/pkgconfig"

cargo build --release --locked --package fieldspool --target "$triple" >&2
binary=${CARGO_TARGET_DIR:-target}/$triple/release/fieldspool

# The reason for the sysroot, checked: Debian 12 has 2.36.
newest=$(objdump -T "$binary" | grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -1)
echo "needs $newest" >&2
if [[ $(printf '%s\n' "$newest" GLIBC_2.36 | sort -V | tail -1) != GLIBC_2.36 ]]; then
    echo "$binary needs $newest, which Debian 12 does not have" >&2
    exit 70
fi
echo "$binary"
