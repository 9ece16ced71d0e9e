//! Tells when the network came up, so that the uplink need not sit out its wait: a link that carries again, or a new address.
//!
//! One rtnetlink socket (rtnetlink(7)) listens to what the kernel tells everybody; it asks nothing and changes nothing. A cable
//! brings several messages (carrier, address, route) within moments: they settle for [`SETTLE`] and are one piece of news.
//! What is known is bounded. Without the socket (no AF_NETLINK in the sandbox) there is no news, and waits run their time.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram as Datagrams;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use tokio::net::UnixDatagram;
use tokio::time::{Instant, sleep_until};

/// Routes follow the address that they belong to.
const SETTLE: Duration = Duration::from_millis(500);
/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR (linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// The kernel cuts its messages to a page where it can; a longer one is not understood, and that is all.
const DATAGRAM: usize = 8 * 1024;
/// Links and addresses that are remembered; with more of them a refreshed one may count as new.
const KNOWN_MAX: usize = 64;

/// The watch over the network.
#[derive(Debug)]
pub(super) struct Link {
    socket: Option<UnixDatagram>,
    known: Known,
    /// When the news that is not told yet has settled.
    settled: Option<Instant>,
}

impl Link {
    /// Begins to listen; to be called on the runtime.
    pub(super) fn watch() -> Self {
        let socket = listen().inspect_err(|error| {
            tracing::debug!(%error, "the kernel does not tell when the network comes up");
        });
        Self { socket: socket.ok(), known: Known::default(), settled: None }
    }

    /// Waits until the network came up. Cancel-safe; pending for ever without the socket.
    pub(super) async fn came_up(&mut self) {
        loop {
            let Some(socket) = &self.socket else { return std::future::pending().await };
            if let Some(at) = self.settled {
                sleep_until(at).await;
                while take(socket, &mut self.known).is_ok() {}
                self.settled = None;
                return;
            }
            let taken = match socket.readable().await {
                Ok(()) => take(socket, &mut self.known),
                Err(error) => Err(error),
            };
            match taken {
                Ok(true) => self.settled = Some(Instant::now() + SETTLE),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A socket that only fails would spin.
                Err(_) => self.socket = None,
            }
        }
    }
}

fn listen() -> io::Result<UnixDatagram> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
    // To the runtime a datagram socket is a datagram socket: all that is called is recv(2).
    UnixDatagram::from_std(Datagrams::from(socket))
}

/// Takes one datagram; whether it is news. Would block: there is none.
fn take(socket: &UnixDatagram, known: &mut Known) -> io::Result<bool> {
    let mut datagram = [0; DATAGRAM];
    match socket.try_recv(&mut datagram) {
        Ok(length) => Ok(known.take(datagram.get(..length).unwrap_or_default())),
        // More came than the kernel kept for us: something has happened.
        Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => Ok(true),
        Err(error) => Err(error),
    }
}

/// What is up already, as far as it was told.
#[derive(Debug, Default)]
struct Known {
    links: BTreeSet<u32>,
    addresses: BTreeSet<(u32, Vec<u8>)>,
}

// linux/rtnetlink.h, linux/if.h, linux/if_addr.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;
const IFA_ADDRESS: u16 = 1;
/// Of this link (253) or this host (254) only: leads nowhere.
const SCOPE_LINK: u8 = 253;

impl Known {
    /// Whether a datagram of messages brings a link or an address that was not up before.
    fn take(&mut self, mut datagram: &[u8]) -> bool {
        let mut news = false;
        // Length with this header, type, flags, number, sender (netlink(7)); each message begins at a multiple of 4.
        while let (Some(length), Some(kind)) = (u32_at(datagram, 0), u16_at(datagram, 4)) {
            let length = length as usize;
            let Some(body) = datagram.get(16..length) else { break };
            news |= match kind {
                RTM_NEWLINK | RTM_DELLINK => self.link(kind, body).unwrap_or_default(),
                RTM_NEWADDR | RTM_DELADDR => self.address(kind, body).unwrap_or_default(),
                _ => false,
            };
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        news
    }

    /// `ifinfomsg`: family, padding, type (2), index (4), flags (4), change mask (4).
    fn link(&mut self, kind: u16, body: &[u8]) -> Option<bool> {
        let (index, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
        let up = kind == RTM_NEWLINK && flags & IFF_RUNNING != 0 && flags & IFF_LOOPBACK == 0;
        if !up {
            self.links.remove(&index);
            return Some(false);
        }
        Some(learn(&mut self.links, index))
    }

    /// `ifaddrmsg`: family, prefix length, flags, scope, index (4); then attributes.
    fn address(&mut self, kind: u16, body: &[u8]) -> Option<bool> {
        let (scope, index) = (*body.get(3)?, u32_at(body, 4)?);
        if scope >= SCOPE_LINK {
            return Some(false);
        }
        let key = (index, attribute(body.get(8..)?, IFA_ADDRESS)?.to_vec());
        if kind == RTM_DELADDR {
            self.addresses.remove(&key);
            return Some(false);
        }
        // An address of IPv6 is told again with each router advertisement.
        Some(learn(&mut self.addresses, key))
    }
}

/// Whether it is new.
fn learn<T: Ord>(known: &mut BTreeSet<T>, one: T) -> bool {
    if known.len() >= KNOWN_MAX {
        known.pop_first();
    }
    known.insert(one)
}

/// The first attribute of a kind: length with this header (2), kind (2), content; each begins at a multiple of 4.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, kind) = (usize::from(u16_at(attributes, 0)?), u16_at(attributes, 2)?);
        let content = attributes.get(4..length)?;
        if kind == wanted {
            return Some(content);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link(kind: u16, index: u32, flags: u32) -> Vec<u8> {
        let fields = [&[0; 4][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]];
        message(kind, &fields.concat())
    }

    fn address(kind: u16, index: u32, scope: u8, address: &[u8]) -> Vec<u8> {
        // A label (3) of 5 bytes before the address, so that padding matters.
        let mut body = vec![2, 24, 0, scope];
        body.extend(index.to_ne_bytes());
        body.extend([9_u16.to_ne_bytes(), 3_u16.to_ne_bytes()].concat());
        body.extend(b"eth0\0\0\0\0");
        let length = u16::try_from(4 + address.len()).unwrap();
        body.extend([length.to_ne_bytes(), IFA_ADDRESS.to_ne_bytes()].concat());
        body.extend(address);
        message(kind, &body)
    }

    #[test]
    fn a_link_that_carries_and_a_new_address_are_news_once() {
        const UP: u32 = 0x1 | IFF_RUNNING;
        let mut known = Known::default();
        assert!(!known.take(&link(RTM_NEWLINK, 2, 0x1)), "up, and no carrier");
        assert!(known.take(&link(RTM_NEWLINK, 2, UP)));
        assert!(!known.take(&link(RTM_NEWLINK, 2, UP)), "told again");
        assert!(!known.take(&link(RTM_NEWLINK, 2, 0x1)), "the cable is out");
        assert!(known.take(&link(RTM_NEWLINK, 2, UP)), "and in again");
        assert!(!known.take(&link(RTM_NEWLINK, 1, UP | IFF_LOOPBACK)));
        let mine = [192, 0, 2, 1];
        let two = [link(RTM_NEWLINK, 2, UP), address(RTM_NEWADDR, 2, 0, &mine)].concat();
        assert!(known.take(&two), "the second of two messages");
        assert!(!known.take(&address(RTM_NEWADDR, 2, 0, &mine)), "refreshed");
        assert!(!known.take(&address(RTM_DELADDR, 2, 0, &mine)));
        assert!(known.take(&address(RTM_NEWADDR, 2, 0, &mine)));
        assert!(!known.take(&address(RTM_NEWADDR, 1, 254, &[127, 0, 0, 1])), "leads nowhere");
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut known = Known::default();
        for index in 0..1_000 {
            known.take(&link(RTM_NEWLINK, index, IFF_RUNNING));
            known.take(&address(RTM_NEWADDR, index, 0, &index.to_ne_bytes()));
        }
        assert_eq!((known.links.len(), known.addresses.len()), (KNOWN_MAX, KNOWN_MAX));
    }

    proptest! {
        #[test]
        fn garbage_is_read_to_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 15_u16..23) {
            let mut known = Known::default();
            known.take(&bytes);
            known.take(&message(kind, &bytes));
        }
    }
}
