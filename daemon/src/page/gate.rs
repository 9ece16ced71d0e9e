//! Who gets in: a bounded number of sockets, and only requests that name this gateway.
//!
//! The page must never harm the daemon around it: 64 viewers and 32 other sockets, a few per address from outside,
//! and the rest are told to come back. Six of the 32 are for this machine alone: neighbours, however many, cannot keep out
//! the person with a tunnel or the scraper. A wrong `Host` is refused before routing, which stops DNS rebinding: a
//! hostile page can make a browser send requests here, but not with one of our names.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Viewers (open `/api/events`) at once.
pub const VIEWERS_MAX: usize = 64;

/// Other sockets at once.
pub const OTHERS_MAX: usize = 32;

/// Of these for loopback alone: a browser behind a tunnel opens six.
const LOOPBACK_OWN: usize = 6;

/// Sockets at once from one address that is not this machine. A browser opens six and one for each tab.
const FROM_ONE_ADDRESS_MAX: usize = 24;

/// The seats of the house.
#[derive(Debug, Default)]
pub struct Seats {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    viewers: usize,
    others: usize,
    /// Of the others, those from outside.
    outside: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One socket's seat; free again when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
    viewer: Mutex<bool>,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a socket in, if there is room.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let address = address.to_canonical();
        let mut taken = self.taken();
        if taken.others >= OTHERS_MAX {
            return None;
        }
        if !address.is_loopback() {
            if taken.outside >= OTHERS_MAX - LOOPBACK_OWN {
                return None;
            }
            let from_there = taken.by_address.entry(address).or_default();
            if *from_there >= FROM_ONE_ADDRESS_MAX {
                return None;
            }
            *from_there += 1;
            taken.outside += 1;
        }
        taken.others += 1;
        Some(Seat { seats: Arc::clone(self), address, viewer: Mutex::new(false) })
    }
}

impl Taken {
    /// One of the others ends, or becomes a viewer.
    fn leave(&mut self, address: IpAddr) {
        self.others -= 1;
        self.outside -= usize::from(!address.is_loopback());
    }
}

impl Seat {
    /// Who sits there.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Makes this socket a viewer's for the rest of its life, if there is room for one.
    pub fn view(&self) -> bool {
        let mut viewer = self.viewer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.seats.taken();
        if !*viewer && taken.viewers < VIEWERS_MAX {
            taken.viewers += 1;
            taken.leave(self.address);
            *viewer = true;
        }
        *viewer
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let viewer = *self.viewer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.seats.taken();
        if viewer {
            taken.viewers -= 1;
        } else {
            taken.leave(self.address);
        }
        if let Some(from_there) = taken.by_address.get_mut(&self.address) {
            *from_there -= 1;
            if *from_there == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// Whether a `Host` names this gateway.
///
/// `local` is the address on which this very connection arrived: an own address by construction. Loopback names are
/// good with any port, because tunnels (`ssh -L`) end at any port, and no hostile name can be one of them.
pub fn names_us(host: &str, local: SocketAddr, tls: bool, names: &[String]) -> bool {
    let Some((name, port)) = split(host) else { return false };
    if matches!(name, "127.0.0.1" | "[::1]") || name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    if port.unwrap_or(if tls { 443 } else { 80 }) != local.port() {
        return false;
    }
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    match inner.parse::<IpAddr>() {
        Ok(address) => address.to_canonical() == local.ip().to_canonical(),
        Err(_) => names.iter().any(|known| known.eq_ignore_ascii_case(name)),
    }
}

/// `name`, `name:port`, `[v6]` or `[v6]:port`.
fn split(host: &str) -> Option<(&str, Option<u16>)> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, rest) = host.split_at_checked(end)?;
    if name.is_empty() || name.contains(|c: char| !(c.is_ascii_alphanumeric() || "-._:[]".contains(c))) {
        return None;
    }
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((name, None)),
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some((name, Some(port.parse().ok()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOCAL: &str = "192.168.7.20:8480";

    fn good(host: &str) -> bool {
        names_us(host, LOCAL.parse().expect("address"), true, &["gw1.plant7.example".to_owned()])
    }

    #[test]
    fn own_names_and_addresses_pass_and_nothing_else() {
        for host in [
            "192.168.7.20:8480",
            "gw1.plant7.example:8480",
            "GW1.plant7.EXAMPLE:8480",
            "localhost",
            "localhost:9000",
            "127.0.0.1:8480",
            "[::1]:8480",
        ] {
            assert!(good(host), "{host}");
        }
        for host in [
            "",
            ":8480",
            "evil.example",
            "evil.example:8480",
            "192.168.7.20",
            "192.168.7.20:443",
            "192.168.7.21:8480",
            "gw1.plant7.example",
            "gw1.plant7.example.:8480",
            "gw1.plant7.example:8480:8480",
            "gw1.plant7.example.evil.example:8480",
            "evil.example#gw1.plant7.example:8480",
            "user@gw1.plant7.example:8480",
            "localhost.evil.example:8480",
            "127.0.0.1.evil.example:8480",
            "[::1",
            "[::2]:8480",
            "localhost:x",
            "localhost:99999",
            "localhost\0",
            "3232237332:8480",
        ] {
            assert!(!good(host), "{host}");
        }
        let six = "[fd00::7]:443".parse().expect("address");
        assert!(names_us("[fd00::7]", six, true, &[]), "the default port may be left out");
        let mapped = "[::ffff:192.168.7.20]:8480".parse().expect("address");
        assert!(names_us("192.168.7.20:8480", mapped, true, &[]));
    }

    proptest! {
        #[test]
        fn no_random_host_passes(host in "\\PC{0,40}", port in any::<u16>()) {
            prop_assume!(!["localhost", "127.0.0.1", "[::1]", "192.168.7.20", "gw1.plant7.example"]
                .iter().any(|own| host.to_ascii_lowercase().starts_with(own)));
            prop_assert!(!good(&host));
            let with_port = format!("{host}:{port}");
            prop_assert!(!good(&with_port));
        }
    }

    #[test]
    fn seats_are_bounded_by_kind_and_by_address() {
        let seats = Arc::new(Seats::default());
        let here: IpAddr = "127.0.0.1".parse().expect("address");
        let mut house = Vec::new();
        while house.len() < VIEWERS_MAX {
            let seat = seats.enter(here).expect("room");
            assert!(seat.view());
            house.push(seat);
        }
        let others: Vec<Seat> = std::iter::from_fn(|| seats.enter(here)).collect();
        assert_eq!(others.len(), OTHERS_MAX);
        assert!(others.iter().all(|seat| !seat.view()), "no room for another viewer");
        drop(house.pop());
        assert!(others[0].view());
        assert!(seats.enter(here).is_some(), "its place among the others is free");
        drop((house, others));
        let there: IpAddr = "192.168.7.9".parse().expect("address");
        let crowd: Vec<Seat> = std::iter::from_fn(|| seats.enter(there)).collect();
        assert_eq!(crowd.len(), FROM_ONE_ADDRESS_MAX);
        assert!(seats.enter(here).is_some());
        drop(crowd);
        assert!(seats.taken().by_address.is_empty());
    }

    #[test]
    fn no_number_of_neighbours_keeps_this_machine_out() {
        let seats = Arc::new(Seats::default());
        let mut crowd = Vec::new();
        for last in 1..=9 {
            crowd.extend(std::iter::from_fn(|| seats.enter(IpAddr::from([192, 168, 7, last]))));
        }
        assert_eq!(crowd.len(), OTHERS_MAX - LOOPBACK_OWN);
        let here = IpAddr::from([127, 0, 0, 1]);
        let own: Vec<Seat> = std::iter::from_fn(|| seats.enter(here)).collect();
        assert_eq!(own.len(), LOOPBACK_OWN);
        // A neighbour that becomes a viewer makes room for another one, and none when it ends.
        assert!(crowd[0].view());
        let one_more = seats.enter(IpAddr::from([192, 168, 7, 77])).expect("room");
        drop((crowd, own, one_more));
        let Taken { viewers, others, outside, ref by_address } = *seats.taken();
        assert_eq!((viewers, others, outside, by_address.len()), (0, 0, 0, 0));
    }
}
