//! Why a connection ended, in a technician's words, each with what to do.
//!
//! Only what was found is said: a name that does not resolve is not "network trouble", and a connection cut during the
//! handshake is not called a certificate problem. Whether the cause is one or the other decides the back-off ([`Cause`]).

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use rumqttc::{TlsError, v5};
use rustls::{AlertDescription, CertificateError};

use super::payload;
use super::reasons::{NOT_LET_IN, disconnected, refused_v4, refused_v5};

/// The end of a connection, or of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// What kind.
    pub cause: Cause,
    /// One sentence, then what to do.
    pub words: String,
}

/// Kinds of ends, as far as they are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    /// Name, route, TCP, time-outs.
    Network,
    /// The peer was reached and refused us: TLS, CONNACK, DISCONNECT.
    Refused,
    /// The peer closed without a word.
    Closed,
    /// The broker says that another client came with our id.
    TakenOver,
    /// A packet we cannot read: a PUBACK reason the library does not know, among others.
    Unreadable,
    /// The broker goes down or moves, and says so.
    Leaving,
    /// Files of ours cannot be used.
    Ours,
}

impl End {
    pub(super) fn new(cause: Cause, words: impl Into<String>) -> Self {
        Self { cause, words: words.into() }
    }

    /// The end of a connection with a broker that does not let us in. Whether it knows us at all it does not say; what it was shown
    /// tells where to look: a user, a certificate, or neither.
    pub(super) fn of_one_not_let_in(self, user: bool, certificate: bool) -> Self {
        if self.words != NOT_LET_IN {
            return self;
        }
        let cure = match (user, certificate) {
            (true, _) => "check user and password_file, then the broker's access list",
            (false, true) => {
                "see that it takes our certificate for a user and that its access list has it, or set user and password_file"
            }
            (false, false) => "it wants a user: set user and password_file",
        };
        Self::new(self.cause, format!("{NOT_LET_IN}: {cure}"))
    }

    /// The end of a connection without TLS, before the broker had said a word of MQTT. Its TLS alert may be lost to the reset.
    pub(super) fn of_a_plain_stranger(self) -> Self {
        if self.cause != Cause::Closed {
            return self;
        }
        let words = "the connection was cut before the broker said a word: perhaps the port speaks TLS: write mqtts:// \
                     in broker, or see the broker's log";
        Self::new(Cause::Closed, words)
    }
}

/// An error of the version 5 client.
pub(super) fn explain_v5(error: &v5::ConnectionError) -> End {
    use v5::{ConnectionError as E, StateError as S};
    match error {
        E::Timeout(_) => timed_out(),
        E::Tls(tls) => explain_tls(tls),
        E::Io(error) => explain_io(error),
        E::ConnectionRefused(code) => refused_v5(*code),
        E::NotConnAck(_) => not_mqtt(),
        E::RequestsDone => End::new(Cause::Ours, "the connection was given up"),
        E::MqttState(state) => match state {
            S::Io(error) | S::Deserialization(v5::mqttbytes::Error::Io(error)) => explain_io(error),
            S::ServerDisconnect { reason_code, reason_string } => {
                disconnected(*reason_code, reason_string.as_deref())
            }
            S::ConnFail { reason } => refused_v5(*reason),
            S::ConnectionAborted => closed(),
            S::AwaitPingResp | S::CollisionTimeout => silent(),
            S::Deserialization(v5::mqttbytes::Error::BoundaryCrossed(n)) if is_tls_alert(*n) => speaks_tls(),
            S::Deserialization(other) => unreadable(&other.to_string()),
            S::Unsolicited(id) => unreadable(&format!("an acknowledgement for {id}, which was not sent")),
            other => unreadable(&other.to_string()),
        },
    }
}

/// An error of the version 3.1.1 client.
pub(super) fn explain_v4(error: &rumqttc::ConnectionError) -> End {
    use rumqttc::{ConnectionError as E, StateError as S};
    match error {
        E::NetworkTimeout => timed_out(),
        E::FlushTimeout => silent(),
        E::Tls(tls) => explain_tls(tls),
        E::Io(error) => explain_io(error),
        E::ConnectionRefused(code) => refused_v4(*code),
        E::NotConnAck(_) => not_mqtt(),
        E::RequestsDone => End::new(Cause::Ours, "the connection was given up"),
        E::MqttState(state) => match state {
            S::Io(error) | S::Deserialization(rumqttc::mqttbytes::Error::Io(error)) => explain_io(error),
            S::ConnectionAborted => closed(),
            S::AwaitPingResp | S::CollisionTimeout => silent(),
            S::Deserialization(rumqttc::mqttbytes::Error::BoundaryCrossed(n)) if is_tls_alert(*n) => {
                speaks_tls()
            }
            S::Deserialization(other) => unreadable(&other.to_string()),
            S::Unsolicited(id) => unreadable(&format!("an acknowledgement for {id}, which was not sent")),
            other => unreadable(&other.to_string()),
        },
    }
}

fn timed_out() -> End {
    End::new(
        Cause::Network,
        "the broker did not answer in time: check that it runs, and that no firewall drops the connection",
    )
}

fn silent() -> End {
    End::new(Cause::Network, "the broker stopped answering: the connection was lost without a word")
}

fn closed() -> End {
    End::new(Cause::Closed, "the broker closed the connection without saying why: see the broker's log")
}

fn not_mqtt() -> End {
    End::new(Cause::Refused, "what answers on this port does not speak MQTT: check host and port")
}

/// A TLS alert (0x15, then the version 3.0 to 3.4, then a length) reads as the packet CONNECT with 3 bytes, whose text
/// would have 0x0300 to 0x0304 bytes.
fn is_tls_alert(length: usize) -> bool {
    (0x0300..=0x0304).contains(&length)
}

fn speaks_tls() -> End {
    End::new(Cause::Refused, "the port speaks TLS: write mqtts:// in broker, or give the port without TLS")
}

fn unreadable(what: &str) -> End {
    End::new(
        Cause::Unreadable,
        format!("the broker sent something unexpected ({what}): see the broker's log"),
    )
}

fn explain_tls(error: &TlsError) -> End {
    match error {
        TlsError::Io(error) => explain_io(error),
        TlsError::TLS(error) => explain_rustls(error),
        TlsError::DNSName(_) => {
            End::new(Cause::Ours, "the broker's host is no name that a certificate can carry: check broker")
        }
        other => End::new(Cause::Refused, format!("TLS: {other}")),
    }
}

/// rustls hides its own errors inside I/O errors, after the handshake three levels down.
fn explain_io(error: &io::Error) -> End {
    if let Some(tls) = rustls_inside(error) {
        return explain_rustls(tls);
    }
    let words = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there (connection refused): check that the broker runs, and host and port"
        }
        io::ErrorKind::TimedOut => {
            "the broker did not answer in time: check that it runs, and that no firewall drops the connection"
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            "there is no route to the broker: check cable, modem and gateway"
        }
        io::ErrorKind::UnexpectedEof if !error.to_string().contains("handshake") => return closed(),
        io::ErrorKind::UnexpectedEof => {
            return End::new(
                Cause::Closed,
                "the broker closed the connection during the TLS handshake: see the broker's log, and check that this is its TLS port",
            );
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            return End::new(
                Cause::Closed,
                "the connection was cut (reset): a broker that restarts, a port without TLS, or something between",
            );
        }
        _ if is_lookup(error) => {
            return End::new(
                Cause::Network,
                format!("the broker's name cannot be looked up ({error}): check the name, and DNS"),
            );
        }
        _ => return End::new(Cause::Network, format!("network: {error}")),
    };
    End::new(Cause::Network, words)
}

/// getaddrinfo's errors have no kind of their own; std puts this before their text.
fn is_lookup(error: &io::Error) -> bool {
    let text = error.to_string();
    text.contains("failed to lookup address") || text.contains("could not resolve")
}

fn rustls_inside(error: &io::Error) -> Option<&rustls::Error> {
    let mut inner: Option<&(dyn Error + 'static)> = error.get_ref().map(|e| e as &(dyn Error + 'static));
    while let Some(error) = inner {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        inner = match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|e| e as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

pub(super) fn explain_rustls(error: &rustls::Error) -> End {
    let words = match error {
        rustls::Error::InvalidCertificate(why) => brokers_certificate(why),
        rustls::Error::AlertReceived(alert) => our_certificate(*alert),
        rustls::Error::InvalidMessage(_) => {
            "what answers on this port does not speak TLS: check the port (8883 is usual), or a portal in between"
                .to_owned()
        }
        rustls::Error::NoCertificatesPresented => "the broker showed no certificate".to_owned(),
        rustls::Error::PeerIncompatible(why) => {
            format!("the broker's TLS is too old or too different ({why:?}): TLS 1.2 or 1.3 is needed")
        }
        rustls::Error::NoApplicationProtocol => {
            "the broker speaks none of the protocols offered by ALPN: check alpn".to_owned()
        }
        other => format!("TLS: {other}"),
    };
    End::new(Cause::Refused, words)
}

/// We do not believe the broker.
fn brokers_certificate(why: &CertificateError) -> String {
    const CLOCK: &str = "check the gateway's clock first";
    match why {
        CertificateError::UnknownIssuer => {
            "the broker's certificate is signed by an authority that is not in ca: give the CA that signed it"
                .into()
        }
        CertificateError::Expired => {
            format!("the broker's certificate has expired: renew it at the broker, or {CLOCK}")
        }
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the broker's certificate expired on {}, and the gateway's clock shows {}: renew it at the broker, or {CLOCK}",
            date(not_after.as_secs()),
            date(time.as_secs())
        ),
        CertificateError::NotValidYet => format!("the broker's certificate is not valid yet: {CLOCK}"),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the broker's certificate is not valid before {}, and the gateway's clock shows {}: {CLOCK}",
            date(not_before.as_secs()),
            date(time.as_secs())
        ),
        CertificateError::NotValidForName => {
            "the broker's certificate is for another name: use the name in its certificate as the host".into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let mut names = String::new();
            for name in presented.iter().take(5) {
                // rustls prints names as DnsName("x"); the text inside is what a person knows.
                let bare = name.split('"').nth(1).unwrap_or(name);
                let _ = write!(names, "{}{bare}", if names.is_empty() { "" } else { ", " });
            }
            if names.is_empty() {
                names.push_str("no name at all");
            }
            format!(
                "the broker's certificate is for {names}, not for {}: use a name that is in it as the host",
                expected.to_str()
            )
        }
        CertificateError::Revoked => "the broker's certificate is revoked".into(),
        CertificateError::BadSignature => {
            "the broker's certificate is forged or damaged (bad signature)".into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the broker's certificate is not one for servers: issue it with extended key usage serverAuth"
                .into()
        }
        CertificateError::BadEncoding => "the broker's certificate cannot be read".into(),
        other => format!("the broker's certificate cannot be trusted ({other})"),
    }
}

/// The broker does not believe us: it sends an alert (RFC 8446 6.2).
fn our_certificate(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the broker wants a client certificate: set cert and key".into()
        }
        AlertDescription::UnknownCA => {
            "the broker does not know the authority that signed our certificate: add that CA at the broker".into()
        }
        AlertDescription::CertificateExpired => {
            "the broker says that our certificate has expired: renew cert, or check both clocks".into()
        }
        AlertDescription::CertificateRevoked => "the broker says that our certificate is revoked: renew cert".into(),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => format!(
            "the broker refuses our certificate ({alert:?}): see the broker's log, and check cert (version 3, clientAuth)"
        ),
        AlertDescription::AccessDenied => "the broker denies access to our certificate".into(),
        AlertDescription::HandshakeFailure => {
            "the broker ends the TLS handshake: a client certificate it wants and we have not, or no cipher in common"
                .into()
        }
        AlertDescription::ProtocolVersion => "the broker's TLS is too old: TLS 1.2 or 1.3 is needed".into(),
        AlertDescription::UnrecognisedName => {
            "the broker does not know itself by this host name: use the name in its certificate".into()
        }
        AlertDescription::NoApplicationProtocol => {
            "the broker speaks none of the protocols offered by ALPN: check alpn".into()
        }
        other => format!("the broker ends TLS with the alert {other:?}: see the broker's log"),
    }
}

/// The day of a time in seconds since 1970.
fn date(seconds: u64) -> String {
    let mut text = Vec::new();
    payload::time(
        &mut text,
        i64::try_from(seconds).unwrap_or(i64::MAX / 1_000_000).saturating_mul(1_000_000),
    );
    String::from_utf8_lossy(&text).chars().skip(1).take(10).collect()
}
