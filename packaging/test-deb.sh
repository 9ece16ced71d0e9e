#!/bin/bash
# The package under a real systemd, in a container: install, idle, a configured line, reload, kill -9, watchdog,
# upgrade, remove, purge. Needs root (it asks sudo by itself); nothing outside its folder is touched.
#   packaging/test-deb.sh [bookworm|trixie]...     default: both
set -euo pipefail

arch=$(dpkg --print-architecture)
packages=(dist/fieldspool_*_"$arch".deb)
package=$(realpath -e "${packages[-1]}" 2>/dev/null) || {
    echo "no dist/fieldspool_*_$arch.deb: run make deb" >&2
    exit 66
}
if ((EUID != 0)); then
    exec sudo --preserve-env=XDG_CACHE_HOME "$0" "$@"
fi
packaging/needs.sh mmdebstrap systemd-container debian-archive-keyring openssl
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fieldspool
work=$(mktemp -d)
nspawn=
box=

finish() {
    # Its child is the container's init: with it everything inside ends.
    [[ -z $nspawn ]] || pkill -KILL -P "$nspawn" || true
    wait || true
    rm -rf "$work"
}
trap finish EXIT

# A root file system of one release, made once.
rootfs() {
    local root=$cache/rootfs-$1
    if [[ ! -e $root.complete ]]; then
        echo "making a Debian $1 root file system in $root"
        rm -rf "$root"
        mkdir -p "$cache"
        mmdebstrap --quiet --variant=minbase \
            --include=systemd,systemd-sysv,dbus,udev,mosquitto,mosquitto-clients,socat,libsystemd0,libgcc-s1,man-db \
            "$1" "$root" "deb $(packaging/mirror.sh) $1 main"
        # The broker of the test is started by the test.
        rm -f "$root"/etc/systemd/system/multi-user.target.wants/mosquitto.service
        printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
        touch "$root.complete"
    fi
    cp -a --reflink=auto "$root" "$work/root"
}

# Boots it. nspawn needs a cgroup2 tree and a /run of its own where the host is itself a container.
boot() {
    cat >"$work/boot.sh" <<'BOOT'
mount --make-rprivate /
umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs /run
exec systemd-nspawn -D "$1/root" --register=no --keep-unit --boot --console=pipe --bind-ro="$1/files:/mnt" --link-journal=no
BOOT
    unshare -m bash "$work/boot.sh" "$work" >"$work/console" 2>&1 </dev/null &
    nspawn=$!
    until_true 120 "systemd runs" ready
}

# nspawn has one child after another until the container's init stands. `degraded` will do: a container has no hardware
# for some units.
ready() {
    box=$(pgrep -P "$nspawn" | head -1)
    [[ -n $box && $(within systemctl is-system-running) =~ ^(running|degraded)$ ]]
}

within() {
    nsenter -t "$box" -a env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# until_true SECONDS WHAT COMMAND...
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "$what"
        sleep 0.2
    done
    echo "ok: $what"
}

# expect WHAT COMMAND...
expect() {
    local what=$1
    shift
    "$@" >"$work/said" 2>&1 || {
        cat "$work/said"
        fail "$what"
    }
    echo "ok: $what"
}

fail() {
    echo "FAILED: $1" >&2
    if [[ -n $box ]]; then
        within systemctl status fieldspool --no-pager --lines=40 >&2 || true
        within cat /var/log/dpkg.log 2>/dev/null | tail -5 >&2 || true
    fi
    exit 1
}

pid() { within systemctl show -P MainPID fieldspool; }
state_is() { [[ $(within systemctl show -P ActiveState fieldspool) == "$1" ]]; }
restarted_from() {
    local now
    now=$(pid)
    [[ $now != 0 && $now != "$1" ]] && state_is active
}
# A shell of its own: without pipefail, grep may stop reading early.
in_journal() { within sh -c "journalctl -o cat --no-pager | grep -qE '$1'"; }
arrived() { within sh -c "grep -c '\"lane\"' /run/received 2>/dev/null" | awk -v least="$1" '{exit !($1 >= least)}'; }

# A broker's and a gateway's certificate from one authority, and a configuration that uses everything the sandbox
# could forbid: a serial line, name resolution, a key file, the page.
files() {
    local tls=$work/files/tls
    mkdir -p "$tls"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 400 -subj "/CN=test authority" \
        -keyout "$tls/ca.key" -out "$tls/ca.pem" 2>/dev/null
    for name in localhost deb-gw1; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
            -keyout "$tls/$name.key" -out "$tls/$name.csr" 2>/dev/null
        openssl x509 -req -in "$tls/$name.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial -days 400 \
            -extfile <(echo "subjectAltName=DNS:$name") -out "$tls/$name.pem" 2>/dev/null
    done
    chmod 0644 "$tls"/*
    cp "$package" "$work/files/fieldspool.deb"
    cp packaging/test-deb/* "$work/files/"
}

installs_and_says_that_it_is_idle() {
    expect "it installs" within dpkg -i /mnt/fieldspool.deb
    until_true 30 "it starts by itself" state_is active
    expect "it is enabled" within systemctl is-enabled fieldspool
    expect "it says that it polls nothing" within sh -c "systemctl show -P StatusText fieldspool | grep -i 'nothing is configured'"
    expect "status says so too" within sh -c "fieldspool status | grep -i 'nothing is configured'"
    expect "check accepts having no configuration" within fieldspool check
    expect "the man page is there" within man -w fieldspool
    [[ $(within stat -c %a:%U /var/lib/fieldspool) == 700:fieldspool ]] || fail "the state directory is private"
    [[ $(within stat -c %a:%U:%G /etc/fieldspool) == 750:root:fieldspool ]] || fail "the configuration's folder is readable by the daemon only"
    expect "it runs without privileges" within sh -c "
        s=/proc/\$(systemctl show -P MainPID fieldspool)/status
        grep -q 'NoNewPrivs:.1' \$s && grep -q 'Seccomp:.2' \$s && grep -q 'CapEff:.0000000000000000' \$s && ! grep -q 'Uid:.0' \$s"
}

works_in_its_sandbox() {
    expect "a broker with mutual TLS runs" within systemd-run --unit=broker mosquitto -c /mnt/broker.conf
    expect "an instrument sends on a serial line" within systemd-run --unit=instrument -p Restart=always -p RestartSec=100ms socat \
        PTY,link=/dev/ttyS77,raw,echo=0,group=dialout,mode=660 "SYSTEM:sh /mnt/instrument.sh"
    within systemd-run --unit=receiver sh -c "exec mosquitto_sub -h localhost -p 8883 -t '#' -i receiver \
        --cafile /mnt/tls/ca.pem --cert /mnt/tls/localhost.pem --key /mnt/tls/localhost.key > /run/received" 2>/dev/null
    within sh -c "
        install -m 0640 -g fieldspool /mnt/tls/deb-gw1.key /mnt/tls/deb-gw1.pem /mnt/tls/ca.pem /etc/fieldspool/tls/
        install -m 0640 -g fieldspool /mnt/plant.toml /etc/fieldspool/plant.toml"
    expect "check accepts the configuration" within runuser -u fieldspool -- fieldspool check
    # A restart: without a configuration the gateway was called by the machine's name.
    expect "it starts with it" within systemctl restart fieldspool
    until_true 60 "readings arrive at the broker" arrived 3
    local before
    before=$(pid)
    within sed -i 's/Bench scale/Scale on the bench/' /etc/fieldspool/plant.toml
    expect "it reloads" within systemctl reload fieldspool
    until_true 30 "status shows what was changed" within sh -c "fieldspool status | grep 'Scale on the bench'"
    [[ $(pid) == "$before" ]] || fail "the reload kept the process"
    expect "the journal has fields" within sh -c "journalctl -u fieldspool -o json --no-pager | grep -q '\"F_BUS\"'"
}

a_bad_reload_changes_nothing() {
    local before
    before=$(pid)
    within sh -c "cp /etc/fieldspool/plant.toml /root/good; echo 'nonsense = [' >> /etc/fieldspool/plant.toml"
    within systemctl reload fieldspool || true
    until_true 30 "a broken configuration is refused in words" in_journal 'refused|keeps the (old|running)|not applied'
    until_true 30 "and polling goes on" arrived "$(($(within grep -c '"lane"' /run/received) + 2))"
    [[ $(pid) == "$before" ]] || fail "a broken configuration does not end the process"
    within sh -c "cp /root/good /etc/fieldspool/plant.toml"
    expect "the mended one is taken" within systemctl reload fieldspool
}

comes_back() {
    local before
    before=$(pid)
    within sh -c "kill -KILL $before"
    until_true 30 "kill -9: it is back" restarted_from "$before"
    # A pseudo-terminal stays exclusively locked while its other side is open. A real port's lock ends with its owner.
    within systemctl restart instrument
    until_true 60 "and readings arrive again" arrived "$(($(within grep -c '"lane"' /run/received) + 2))"
    before=$(pid)
    within sh -c "kill -STOP $before"
    until_true 90 "it hangs: the watchdog starts it again" restarted_from "$before"
    expect "it was the watchdog" in_journal 'fieldspool.service: Watchdog timeout'
}

upgrades_and_leaves() {
    local runs
    runs=$(run_number)
    expect "it upgrades over itself" within dpkg -i /mnt/fieldspool.deb
    until_true 30 "and runs" state_is active
    until_true 30 "as the next run of the same spool" later_run "$runs"
    expect "it is removed" within dpkg -r fieldspool
    state_is inactive || state_is failed || fail "removal stops it"
    expect "removal keeps the spool" within test -s /var/lib/fieldspool/spool.db
    expect "and the configuration" within test -e /etc/fieldspool/plant.toml
    runs=$((runs + 1))
    expect "it installs again" within dpkg -i /mnt/fieldspool.deb
    until_true 30 "with the spool it had" later_run "$runs"
    expect "removed once more, its spool moves to a file system of its own" within sh -c \
        "dpkg -r fieldspool && mount -t tmpfs none /var/lib/fieldspool && touch /var/lib/fieldspool/spool.db"
    expect "which a purge empties and leaves mounted" within sh -c \
        "dpkg -P fieldspool && mountpoint -q /var/lib/fieldspool && test -z \"\$(ls -A /var/lib/fieldspool)\""
    expect "it installs once more" within sh -c "umount /var/lib/fieldspool && dpkg -i /mnt/fieldspool.deb"
    expect "it is purged" within dpkg -P fieldspool
    expect "purging deletes the spool" within sh -c "! test -e /var/lib/fieldspool && ! test -e /run/fieldspool"
    expect "and keeps what a person wrote" within test -e /etc/fieldspool/plant.toml
    expect "nothing of it is left in systemd" within sh -c "systemctl daemon-reload; ! systemctl cat fieldspool"
}

run_number() { within fieldspool status --json | grep -oE '"run": *"[0-9]+' | grep -oE '[0-9]+' | head -1 | sed 's/^0*//'; }
later_run() { (($(run_number) > $1)); }

releases=("$@")
((${#releases[@]})) || releases=(bookworm trixie)
for release in "${releases[@]}"; do
    printf '\n-- %s\n' "$release"
    rootfs "$release"
    files
    boot
    installs_and_says_that_it_is_idle
    works_in_its_sandbox
    a_bad_reload_changes_nothing
    comes_back
    upgrades_and_leaves
    pkill -KILL -P "$nspawn"
    wait
    nspawn=''
    box=''
    rm -rf "$work/root" "$work/files"
done
printf '\nall of it holds on %s\n' "${releases[*]}"
