#!/bin/bash
# Builds the fuzz targets and runs each for SECONDS_EACH seconds (default 60), or those that are named. On stable Rust: libFuzzer
# needs no more of the compiler than its coverage pass. What it finds is left as tests/fuzz/crash-*; run that again with
#   tests/fuzz/target/HOST/release/TARGET FILE
set -euo pipefail
cd "$(dirname "$0")"

seconds=${SECONDS_EACH:-60}
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target these flags are for the targets alone, not for build scripts and macros.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(block_decode block_encode salvage rtu line)
bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
cargo build --quiet --locked --release --target "$host" "${bins[@]}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
for target in "${targets[@]}"; do
    mkdir "$work/$target"
    said=$work/$target.log
    if ! "target/$host/release/$target" -max_total_time="$seconds" -rss_limit_mb=512 -timeout=10 -max_len=16384 \
        -print_final_stats=1 -artifact_prefix=crash- "$work/$target" "corpus/$target" >"$said" 2>&1; then
        failed=1
        echo "$target: FOUND SOMETHING" >&2
        grep -v '^#' "$said" | tail -n 40 >&2
    fi
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$said")
    coverage=$(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\) .*/\1 edges, \2 features/p' "$said" | tail -n 1)
    echo "$target: ${executions:-?} executions in $seconds s, ${coverage:-no coverage}"
done
exit "$failed"
