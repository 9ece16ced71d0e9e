#!/bin/bash
# Prints the notices of every crate in the shipped binary: name, version, licence, then its licence files.
#   packaging/notices.sh TRIPLE
# MIT, BSD and ISC ask that their text goes with the binary.
set -euo pipefail

shipped=$(cargo tree --locked --package fieldspool --edges normal --target "$1" --prefix none --format '{p}' |
    awk '{print $1 " " substr($2, 2)}' | sort -u)
cargo metadata --locked --format-version 1 --filter-platform "$1" |
    jq -r '.packages[] | select(.source != null) | [.name, .version, .license, .manifest_path] | @tsv' | sort |
    while IFS=$'\t' read -r name version license manifest; do
        grep -qxF "$name $version" <<<"$shipped" || continue
        printf '\n\n==== %s %s: %s\n' "$name" "$version" "$license"
        find "$(dirname "$manifest")" -maxdepth 1 -type f \
            \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) -print0 |
            sort -z | xargs -0 --no-run-if-empty cat
    done
