#!/bin/bash
# Makes dist/fieldspool-VERSION.tar.xz: the committed tree with every crate inside, so that a build needs no network.
# The same commit gives the same bytes.
set -euo pipefail

packaging/rust.sh
packaging/needs.sh git xz-utils jq
[[ -z $(git status --porcelain) ]] || echo "note: what is not committed is not in the archive" >&2

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=fieldspool-$version
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/$name" dist
packaging/source.sh "$work/$name"
cd "$work/$name"

cargo vendor --quiet --locked --versioned-dirs vendor

# Crates for other systems are in the lockfile, so cargo wants to see them, but nothing is built from them: their
# sources, four fifths of the archive, stay out.
cargo metadata --offline --locked --format-version 1 --all-features |
    jq -r '.packages[] | "\(.name)-\(.version)"' | sort -u >"$work/all"
for triple in {x86_64,aarch64,i686,riscv64gc,powerpc64le}-unknown-linux-{gnu,musl} armv7-unknown-linux-{gnu,musl}eabihf; do
    cargo metadata --offline --locked --format-version 1 --all-features --filter-platform "$triple" |
        jq -r '.packages[] | "\(.name)-\(.version)"'
done | sort -u >"$work/needed"
comm -23 "$work/all" "$work/needed" | while read -r crate; do
    [[ -d vendor/$crate ]] || continue
    find "vendor/$crate" -mindepth 1 -maxdepth 1 ! -name Cargo.toml ! -name .cargo-checksum.json -exec rm -r {} +
    mkdir "vendor/$crate/src"
    touch "vendor/$crate/src/lib.rs"
    # The checksum of the package stays, the list of files is empty: cargo checks the files that are listed.
    jq -c '.files = {}' "vendor/$crate/.cargo-checksum.json" >"$work/checksum"
    cp "$work/checksum" "vendor/$crate/.cargo-checksum.json"
done

# The Yocto recipe names licence files of this archive by their checksums.
grep -ohE 'file://[^;" ]+;md5=[0-9a-f]{32}' "yocto/meta-fieldspool/recipes-connectivity/fieldspool/fieldspool_$version.bb" |
    sed -E 's|file://(.*);md5=(.*)|\2  \1|' | md5sum --quiet -c -

# Proof that the archive is whole: everything resolves with no network and no other registry.
CARGO_HOME=$work/home cargo metadata --offline --locked --format-version 1 --all-features >/dev/null
cd - >/dev/null

tar -C "$work" --sort=name --mtime="@$(git log -1 --format=%ct)" --owner=0 --group=0 --numeric-owner \
    --mode=u+rw,go=rX --format=gnu -cf - "$name" | xz -T2 -6 >"dist/$name.tar.xz"
(cd dist && sha256sum "$name.tar.xz" | tee "$name.tar.xz.sha256")
ls -l "dist/$name.tar.xz"
