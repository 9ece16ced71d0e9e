//! A long way to the broker: a TCP proxy that delivers every byte half a round trip later, in both directions, with no
//! limit to the rate.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Listens, and forwards to a port of this machine with this round trip.
pub fn proxy(to: u16, round_trip: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(("127.0.0.1", to)).unwrap();
            for stream in [&near, &far] {
                stream.set_nodelay(true).unwrap();
            }
            carry(near.try_clone().unwrap(), far.try_clone().unwrap(), round_trip / 2);
            carry(far, near, round_trip / 2);
        }
    });
    port
}

/// One direction: one thread reads and notes when, one writes when it is time.
fn carry(mut from: TcpStream, to: TcpStream, delay: Duration) {
    let (sender, pieces) = channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count) = from.read(&mut buffer) {
            if count == 0 || sender.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || deliver(to, &pieces));
}

fn deliver(mut to: TcpStream, pieces: &Receiver<(Instant, Vec<u8>)>) {
    let mut waiting = VecDeque::new();
    loop {
        let next = waiting.front().map(|(at, _): &(Instant, Vec<u8>)| *at);
        let left = next.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        match pieces.recv_timeout(left.min(Duration::from_secs(3600))) {
            Ok(piece) => waiting.push_back(piece),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if waiting.is_empty() => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Err(RecvTimeoutError::Disconnected) => {
                let left = next.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
                std::thread::sleep(left);
            }
        }
        while waiting.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            let Some((_, bytes)) = waiting.pop_front() else { break };
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}
