#!/bin/bash
# Lays the committed tree into a folder that is there, told to take its crates from `vendor` in it.
#   packaging/source.sh FOLDER
set -euo pipefail

packaging/needs.sh git
git archive HEAD | tar -x -C "$1"
# Behind what stands there.
mkdir -p "$1/.cargo"
printf '\n[source.crates-io]\nreplace-with = "vendored"\n\n[source.vendored]\ndirectory = "vendor"\n' >>"$1/.cargo/config.toml"
