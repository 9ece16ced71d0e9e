//! How to connect, with the files and the configuration as they are now.

use rumqttc::{TlsConfiguration, Transport};

use super::super::client::{Dial, Will};
use super::super::config::{self, Protocol};
use super::super::records::{self, State};
use super::super::words::{Cause, End};
use super::Task;

impl Task {
    /// How to connect, with the files as they are now.
    pub(super) fn dial(&mut self) -> Result<Dial, End> {
        let (loaded, fault) = match self.credentials.load(&self.config) {
            Ok(loaded) => loaded,
            Err(fault) => return Err(End::new(Cause::Ours, fault.to_string())),
        };
        if let Some(error) = fault {
            tracing::warn!(%error, "new certificate files cannot be used; the old ones stay");
        }
        self.around.board.update(|status| status.uplink.certificate_expires_us = loaded.expires_us);
        let told = &self.config;
        let transport = match loaded.tls {
            Some(tls) => Transport::tls_with_config(TlsConfiguration::Rustls(tls)),
            None => Transport::tcp(),
        };
        let user = told.user.clone().or_else(|| loaded.password.as_ref().map(|_| String::new()));
        let will = told.will.then(|| Will {
            topic: told.topics.status.topic(&self.around.gateway, ""),
            payload: records::brief(self.life(), State::Offline),
            retain: told.retain,
        });
        // The client puts host and port together with a colon: an IPv6 address needs its brackets.
        let host = if told.broker.host.contains(':') {
            format!("[{}]", told.broker.host)
        } else {
            told.broker.host.clone()
        };
        Ok(Dial {
            v5: told.protocol == Protocol::V5,
            host,
            port: told.broker.port,
            transport,
            client_id: told.client_id.clone().unwrap_or_else(|| self.around.gateway.to_string()),
            credentials: user.map(|user| (user, loaded.password.unwrap_or_default())),
            keep_alive: told.keep_alive.clamp(*config::KEEP_ALIVE.start(), *config::KEEP_ALIVE.end()),
            connect_timeout: told.connect_timeout,
            will,
            window: told.in_flight.clamp(*config::IN_FLIGHT.start(), *config::IN_FLIGHT.end()),
        })
    }
}
