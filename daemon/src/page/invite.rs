//! `fieldspool page invite`: a one-time link for one person, and its QR code drawn with text.
//!
//! The token stands behind the `#`: browsers do not send it with the request, so it reaches no log and no preview of a
//! messenger uses it up. A script on `/invite` hands it in.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use crate::page::access::Token;

/// What to give to the person.
#[derive(Clone)]
pub struct Invitation {
    /// The same invitation under each name and address of the gateway, the likeliest first.
    pub links: Vec<String>,
    /// The first link as a QR code, dark on light, for a terminal.
    pub qr: String,
    /// SHA-256 of the certificate, to compare with what the browser shows.
    pub fingerprint: Option<String>,
    /// Opens one session.
    pub(crate) token: Token,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invitation(..)")
    }
}

/// Why there is no invitation. Who asked acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// The page listens on this machine only, where nobody needs one.
    #[error(
        "the page listens on this machine only, where no invitation is needed; for the network add an address to listen in the [page] table, such as \"0.0.0.0:8480\""
    )]
    NotOnTheNetwork,
    /// Neither a name nor an address is known under which others could reach the page.
    #[error(
        "this gateway has no address that others could reach; connect it to the network, or give it a name in names in the [page] table"
    )]
    NoAddress,
    /// The kernel gives no random numbers.
    #[error("the system has no random numbers yet; try again")]
    NoRandomNumbers,
}

/// Makes one for a page that listens on `addresses`.
pub fn invitation(
    addresses: &[SocketAddr],
    names: &[String],
    fingerprint: Option<String>,
) -> Result<Invitation, InviteError> {
    let Some(address) = addresses.iter().find(|address| !address.ip().is_loopback()) else {
        return Err(InviteError::NotOnTheNetwork);
    };
    let token = Token::draw().ok_or(InviteError::NoRandomNumbers)?;
    let own = if address.ip().is_unspecified() { own_addresses() } else { vec![address.ip()] };
    links(address.port(), names, own, fingerprint, token)
}

fn links(
    port: u16,
    names: &[String],
    own: Vec<IpAddr>,
    fingerprint: Option<String>,
    token: Token,
) -> Result<Invitation, InviteError> {
    let hosts = names.iter().cloned().chain(own.into_iter().map(|ip| match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }));
    let links: Vec<String> =
        hosts.map(|host| format!("https://{host}:{port}/invite#{}", token.reveal())).collect();
    let qr = qr(links.first().ok_or(InviteError::NoAddress)?);
    Ok(Invitation { links, qr, fingerprint, token })
}

/// Two rows of modules in one line of half blocks, with the quiet zone. Terminals are mostly dark, so light modules
/// are drawn.
fn qr(text: &str) -> String {
    let Ok(code) = QrCode::new(text) else { return String::new() };
    code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build()
}

/// Addresses of this machine that others can reach: not loopback, not link-local.
pub fn own_addresses() -> Vec<IpAddr> {
    // Without the list a link is printed for the configured names only.
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let mut all: Vec<IpAddr> = interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
        })
        .filter(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_loopback_nobody_is_invited() {
        let here = ["127.0.0.1:8480".parse().expect("address")];
        assert_eq!(invitation(&here, &[], None).err(), Some(InviteError::NotOnTheNetwork));
    }

    #[test]
    fn an_invitation_without_a_link_is_an_error_that_says_what_to_do() {
        let token = Token::draw().expect("random numbers");
        assert_eq!(links(8480, &[], Vec::new(), None, token).err(), Some(InviteError::NoAddress));
    }

    #[test]
    fn the_link_holds_the_token_where_no_log_sees_it_and_the_code_is_drawn() {
        let there = ["192.168.7.20:8480".parse().expect("address")];
        let invitation = invitation(&there, &["gw1.plant7.example".into()], None).expect("invitation");
        let token = invitation.token.reveal();
        assert_eq!(
            invitation.links,
            [
                format!("https://gw1.plant7.example:8480/invite#{token}"),
                format!("https://192.168.7.20:8480/invite#{token}"),
            ]
        );
        let lines: Vec<&str> = invitation.qr.lines().collect();
        assert!(
            lines.len() > 15 && lines.iter().all(|line| line.chars().count() == lines[0].chars().count())
        );
        assert!(invitation.qr.contains('█') && !format!("{invitation:?}").contains(token));
    }
}
