//! The core as the world's subject.

use std::sync::Arc;

use strowger::b2bua::{Action, B2bua, Event, Settings};
use strowger::base::{Instant, Now, Rng};
use strowger::directory::Directory;
use strowger::sip::transport::Transport;

use crate::ladder::WORKERS;
use crate::office;
use crate::world::Subject;

/// A core that serves `directory`.
pub fn core(directory: Directory, seed: u64) -> Box<dyn Subject> {
    let server: std::net::SocketAddr = office::SERVER.parse().expect("an address");
    let settings = Settings {
        listen: vec![(Transport::Udp, server), (Transport::Tcp, server)],
        media: server.ip(),
        workers: WORKERS as u16,
        ..Settings::default()
    };
    let mut key = [0; 32];
    Rng::from_number(seed).fill(&mut key);
    Box::new(B2bua::new(Arc::new(directory), settings, key))
}

impl Subject for B2bua {
    fn handle(&mut self, now: Now, event: Event) {
        B2bua::handle(self, now, event);
    }

    fn poll(&mut self) -> Option<Action> {
        B2bua::poll(self)
    }

    fn deadline(&self) -> Option<Instant> {
        B2bua::deadline(self)
    }

    fn tables(&self) -> Vec<(String, u64)> {
        let status = self.status();
        [
            ("calls", status.calls),
            ("legs", status.legs),
            ("server transactions", status.server_transactions),
            ("client transactions", status.client_transactions),
            ("ports", status.ports),
            ("proxied", status.proxied),
            ("left open", status.left_open),
        ]
        .into_iter()
        .map(|(name, size)| (name.to_owned(), size as u64))
        .collect()
    }
}
