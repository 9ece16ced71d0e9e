#!/bin/bash
# The Yocto recipe, by oelint-adv, which Debian does not have: an error of it is one. Its warnings are shown and stay: the
# example homepage cannot be reached.
set -euo pipefail

packaging/needs.sh python3-venv
oelint=${XDG_CACHE_HOME:-$HOME/.cache}/fieldspool/oelint
[[ -x $oelint/bin/oelint-adv ]] || {
    echo "installing oelint-adv"
    python3 -m venv "$oelint"
    "$oelint/bin/pip" --quiet install oelint-adv
}
said=$("$oelint/bin/oelint-adv" --quiet --exit-zero yocto/meta-fieldspool/recipes-connectivity/fieldspool/*.bb 2>&1)
echo "$said"
! grep -q ':error:' <<<"$said"
