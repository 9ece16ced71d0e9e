//! The broker's address, as it is typed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{Unusable, unusable};

/// Where the broker is: `mqtts://host[:port]`, or `mqtt://` to a loopback address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Name or address, as it is compared with the broker's certificate; IPv6 addresses without brackets.
    pub host: String,
    /// TCP port; default 8883, or 1883 without TLS.
    pub port: u16,
    /// TLS. Without it the host is a loopback address.
    pub tls: bool,
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Broker {
    type Err = Unusable;

    fn from_str(text: &str) -> Result<Self, Unusable> {
        const SHAPE: &str = "write mqtts://HOST:PORT, for example mqtts://mqtt.example.com:8883";
        let Some((scheme, rest)) = text.split_once("://") else {
            return unusable("the broker's address has no scheme", SHAPE);
        };
        let tls = match scheme {
            "mqtts" | "ssl" | "tls" => true,
            "mqtt" | "tcp" => false,
            "ws" | "wss" => return unusable("MQTT over WebSocket is not spoken", SHAPE),
            other => return unusable(format!("{other}:// is not a scheme of MQTT"), SHAPE),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return unusable("the address carries a user or a password", "use user and password_file");
        }
        if rest.contains(['/', '?', '#']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return unusable("there is more than host and port in the address", SHAPE);
        }
        let (host, port) = split_port(rest)?;
        let port = match port {
            None => {
                if tls {
                    8883
                } else {
                    1883
                }
            }
            Some(digits) => match digits.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => {
                    return unusable(
                        format!("{digits:?} is not a port"),
                        "a port is a number from 1 to 65535",
                    );
                }
            },
        };
        let broker = Self { host: host.to_owned(), port, tls };
        broker.check()?;
        Ok(broker)
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(rest: &str) -> Result<(&str, Option<&str>), Unusable> {
    if let Some(bracketed) = rest.strip_prefix('[') {
        let Some((host, after)) = bracketed.split_once(']') else {
            return unusable("an IPv6 address without its closing bracket", "write [ADDRESS]:PORT");
        };
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => unusable("text after the IPv6 address", "write [ADDRESS]:PORT"),
        };
    }
    match rest.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            unusable("an IPv6 address without brackets", "write [ADDRESS]:PORT")
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((rest, None)),
    }
}

impl Broker {
    fn check(&self) -> Result<(), Unusable> {
        let address = self.host.parse::<IpAddr>().ok();
        if address.is_none() {
            let label = |part: &str| {
                !part.is_empty()
                    && part.len() <= 63
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            };
            let name = self.host.strip_suffix('.').unwrap_or(&self.host);
            if name.is_empty() || name.len() > 253 || !name.split('.').all(label) {
                return unusable(
                    format!("{:?} is not a host name", self.host),
                    "letters, digits, hyphens, dots",
                );
            }
        }
        if self.tls && address.is_some_and(|a| a.is_ipv6()) {
            return unusable(
                "TLS to a bare IPv6 address is not supported",
                "give the broker a name (DNS or /etc/hosts) and use the name",
            );
        }
        let loopback = address.map_or(self.host == "localhost", |a| a.is_loopback());
        if !self.tls && !loopback {
            return unusable(
                "mqtt:// sends readings and passwords in clear over the network",
                "use mqtts:// (mqtt:// is accepted for 127.0.0.1, [::1] and localhost only)",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_address_is_read() {
        let read = |text: &str| text.parse::<Broker>().map(|b| (b.host.clone(), b.port, b.tls));
        assert_eq!(read("mqtts://mqtt.example.com:8884"), Ok(("mqtt.example.com".into(), 8884, true)));
        assert_eq!(read("mqtts://mqtt.example.com/"), Ok(("mqtt.example.com".into(), 8883, true)));
        assert_eq!(read("mqtts://10.0.0.7"), Ok(("10.0.0.7".into(), 8883, true)));
        assert_eq!(read("mqtt://[::1]:2000"), Ok(("::1".into(), 2000, false)));
        assert_eq!(read("mqtt://localhost"), Ok(("localhost".into(), 1883, false)));
    }

    #[test]
    fn readings_never_travel_in_clear_beyond_this_machine() {
        for text in ["mqtt://mqtt.example.com", "mqtt://10.0.0.7", "mqtt://localhost.example.com"] {
            assert!(text.parse::<Broker>().is_err_and(|e| e.what.contains("in clear")), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_broker_address_says_what_to_write() {
        for text in [
            "",
            "mqtt.example.com",
            "http://mqtt.example.com",
            "wss://mqtt.example.com",
            "mqtts://",
            "mqtts://a b",
            "mqtts://host:0",
            "mqtts://host:70000",
            "mqtts://host:",
            "mqtts://host/path",
            "mqtts://u:p@host",
            "mqtts://::1",
            "mqtts://[::1",
            "mqtts://[::1]",
        ] {
            let error = text.parse::<Broker>().expect_err(text);
            assert!(!error.remedy.is_empty(), "{text}");
        }
    }
}
