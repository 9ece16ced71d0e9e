SUMMARY = "Polls Modbus and serial instruments and forwards every reading over MQTT"
DESCRIPTION = "A daemon for industrial gateways. It polls Modbus and serial instruments, stores every reading in \
               a spool that survives power cuts, forwards the spool to an MQTT broker over TLS with a client \
               certificate, and shows the plant live to a technician standing beside the cabinet."
HOMEPAGE = "https://example.org/fieldspool"
BUGTRACKER = "https://example.org/fieldspool/issues"
SECTION = "net"
CVE_PRODUCT = "fieldspool"
# The crates inside the binary: most are under MIT or Apache-2.0, serialport is under MPL-2.0, systemd is under
# LGPL-2.1-or-later with the exception for linking. packaging/copyright says which.
LICENSE = "Apache-2.0 & MIT & BSD-3-Clause & ISC & MPL-2.0 & LGPL-2.1-or-later & Unicode-3.0 & Zlib"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
                    file://packaging/copyright;md5=ea5feee386960da25bcf1f213f5b911a \
                    file://vendor/serialport-4.10.1/LICENSE.txt;md5=cc24d078d74f7dbbc6c61b761886f2a4 \
                    file://vendor/systemd-0.11.1/COPYING;md5=4c53ff3bd97b14115e6b9a63369cfe66"

# The release's source archive, with all crates inside: `make dist` writes it, with its sha256 beside it. Either it
# lies in the folder `fieldspool` beside this file, or FIELDSPOOL_SOURCE names the server that keeps your releases:
#   FIELDSPOOL_SOURCE = "https://releases.example.com/fieldspool-${PV}.tar.xz;sha256sum=..."
FIELDSPOOL_SOURCE ?= "file://fieldspool-${PV}.tar.xz"
SRC_URI = "${FIELDSPOOL_SOURCE} \
           file://state.conf.in \
           "

inherit cargo pkgconfig systemd useradd

CARGO_VENDORING_DIRECTORY = "${S}/vendor"
CARGO_BUILD_FLAGS += "--package fieldspool --no-default-features"
# Packaging splits the symbols off by itself.
export CARGO_PROFILE_RELEASE_STRIP = "none"

PACKAGECONFIG ??= "${@bb.utils.filter('DISTRO_FEATURES', 'systemd', d)}"
# sd_notify through libsystemd. Without it the daemon sends the same datagrams by itself.
PACKAGECONFIG[systemd] = "--features systemd,,systemd"
# The embedded broker of `fieldspool demo`, for trying out. Brings a second TLS library: not for products.
PACKAGECONFIG[local-broker] = "--features local-broker"

# Where the spool lives. With a read-only root file system /var/lib is usually in memory, and a spool in memory does
# not survive a power cut: name a folder on the data partition, for example "/data/fieldspool".
FIELDSPOOL_STATE_DIR ?= "${localstatedir}/lib/fieldspool"

SYSTEMD_SERVICE:${PN} = "fieldspool.service"

USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "--system --user-group --no-create-home --home-dir ${localstatedir}/lib/fieldspool \
                       --shell ${base_sbindir}/nologin --groups dialout fieldspool"

do_install() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/fieldspool ${D}${bindir}/fieldspool

    install -d ${D}${nonarch_libdir}/fieldspool/profiles
    install -m 0644 ${S}/config/profiles/*.toml ${D}${nonarch_libdir}/fieldspool/profiles/

    # Keys of mode 0640 and owner root:fieldspool are read by the daemon and by nobody else.
    install -d -m 0750 -g fieldspool ${D}${sysconfdir}/fieldspool ${D}${sysconfdir}/fieldspool/tls

    install -D -m 0644 ${S}/systemd/fieldspool.service ${D}${systemd_system_unitdir}/fieldspool.service
    if [ "${FIELDSPOOL_STATE_DIR}" != "${localstatedir}/lib/fieldspool" ]; then
        install -d ${D}${systemd_system_unitdir}/fieldspool.service.d
        sed 's|@STATE_DIR@|${FIELDSPOOL_STATE_DIR}|g' ${UNPACKDIR}/state.conf.in \
            > ${D}${systemd_system_unitdir}/fieldspool.service.d/10-state.conf
    fi
}

FILES:${PN} += "${nonarch_libdir}/fieldspool ${systemd_system_unitdir}"

# The page's and the uplink's certificates are checked against the system's roots where no CA file is named; the
# clock's state comes from systemd-timedated over D-Bus.
RRECOMMENDS:${PN} = "ca-certificates dbus kernel-module-usbserial kernel-module-cdc-acm"
