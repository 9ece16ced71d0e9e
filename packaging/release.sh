#!/bin/bash
# All that a release has to pass and `make test` does not look at, as one command: the .deb for three architectures (each asks lintian and
# runs its binary, the ARM ones under qemu-user), the source archive, the product checked from that archive alone, the Yocto
# recipe, the audit. Goes on behind what fails, so that one run shows all of it, and says so at the end.
set -uo pipefail

failed=()
stage() {
    packaging/stage.sh "$@" || failed+=("$1")
}

for arch in amd64 arm64 armhf; do
    stage "package for $arch" packaging/deb.sh "$arch"
done
stage "source archive" packaging/dist.sh
stage "product from the archive" packaging/check-archive.sh
stage "Yocto recipe" packaging/check-recipe.sh
stage "audit" packaging/audit.sh

printf '\n'
if ((${#failed[@]})); then
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 70
fi
echo "all well; make test-deb installs what is in dist/"
