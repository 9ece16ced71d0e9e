#!/bin/bash
# cargo-deny over the shipped build. Licences, bans and sources must pass; advisories too, where their database
# can be fetched. Where it cannot, that is said: an audit that skipped a part must not look like a whole one.
set -euo pipefail

packaging/rust.sh
if ! cargo deny --version >/dev/null 2>&1; then
    echo "installing cargo-deny"
    packaging/needs.sh gcc libc6-dev
    cargo install cargo-deny --locked --quiet
fi

packaging/stage.sh "licences, bans, sources" cargo deny --config .deny.toml check licenses bans sources

# In an answer of its own: a missing database and a finding must not be taken for each other.
said=$(mktemp)
trap 'rm -f "$said"' EXIT
if cargo deny --config .deny.toml fetch db 2>"$said"; then
    packaging/stage.sh "advisories" cargo deny --config .deny.toml check --disable-fetch advisories
else
    grep -m1 -E 'resolve|connect|failed' "$said" >&2 || cat "$said" >&2
    echo "-- advisories: NOT CHECKED, their database cannot be reached from here" >&2
fi
