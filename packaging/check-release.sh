#!/bin/bash
# What of a release can be seen without building one, in a second or two: that its source tree can be laid and cargo understands
# the settings in it, that the Yocto recipe is of this version and names licence files as they are, and that what .deb and
# recipe install is committed. Whether it builds, on 32 bits too, only `make release` tells.
set -euo pipefail

packaging/needs.sh git jq
git rev-parse --git-dir >/dev/null 2>&1 || {
    echo "not checked: an archive of the source is released already"
    exit 0
}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
packaging/source.sh "$tree"
broken=0
fault() {
    echo "$1" >&2
    broken=1
}

# A list that is empty is a question that was asked wrongly: whoever walks over it would find nothing wrong.
some() {
    [[ -n $2 ]] || {
        echo "no $1 found: look at the recipe, at [package.metadata.deb], and at $0" >&2
        exit 70
    }
}

# What the product is built with must not get lost on the way, and cargo must be able to read it.
while IFS= read -r line; do
    grep -qxF -- "$line" "$tree/.cargo/config.toml" || fault "the archive has lost this setting of .cargo/config.toml: $line"
done <.cargo/config.toml
own=$(cd "$tree" && cargo metadata --offline --locked --no-deps --format-version 1)

version=$(jq -r '.packages[] | select(.name == "fieldspool").version' <<<"$own")
folder=yocto/meta-fieldspool/recipes-connectivity/fieldspool
recipe=$tree/$folder/fieldspool_$version.bb
[[ -e $recipe ]] || {
    echo "there is no recipe for version $version in $folder" >&2
    exit 70
}

# Licences of crates by the sources that cargo has unpacked for the build.
crates=$(cargo metadata --locked --all-features --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" --format-version 1 |
    jq -r '.packages[] | "\(.name)-\(.version)\t\(.manifest_path | rtrimstr("/Cargo.toml"))"')
licences=$(grep -ohE 'file://[^;" ]+;md5=[0-9a-f]{32}' "$recipe" | sed -E 's|file://(.*);md5=(.*)|\1\t\2|' || true)
some "licence files in the recipe" "$licences"
while IFS=$'\t' read -r name sum; do
    file=$tree/$name
    if [[ $name == vendor/* ]]; then
        crate=${name#vendor/}
        file=$(awk -F '\t' -v crate="${crate%%/*}" '$1 == crate { print $2 }' <<<"$crates")/${crate#*/}
    fi
    [[ -e $file ]] || {
        fault "the recipe names $name, which is not there: another version of the crate?"
        continue
    }
    have=$(md5sum <"$file")
    [[ ${have%% *} == "$sum" ]] || fault "the recipe says that $name has the checksum $sum, and it has ${have%% *}"
done <<<"$licences"

# Patterns of files, of .deb and recipe. What is in `target` the build makes.
shopt -s globstar
deb='.packages[] | select(.name == "fieldspool").metadata.deb | .assets[][0], .changelog, ."maintainer-scripts", ."systemd-units"."unit-scripts"'
packaged=$(jq -r "$deb" <<<"$own")
packaged=$(grep -v ^target/ <<<"$packaged" | sed 's|^|daemon/|' || true)
some "files of the .deb" "$packaged"
# shellcheck disable=SC2016 # not a variable of ours
installed=$(grep -oE '\$\{S\}/[^" ]+' "$recipe" | sed 's|^${S}/||' | grep -vx vendor || true)
some "files that the recipe installs" "$installed"
while IFS= read -r pattern; do
    compgen -G "$tree/$pattern" >/dev/null || fault "a package installs $pattern, and there is no such file"
done <<<"$packaged"$'\n'"$installed"
exit $((broken * 70))
