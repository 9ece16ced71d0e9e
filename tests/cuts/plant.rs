//! A plant whose values prove where and when they come from: each is a hash of unit, register and poll number, and a poll
//! number is given once in the life of the plant, whatever becomes of the gateway.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Modbus units behind the one endpoint.
pub const UNITS: u8 = 4;

/// Points of a unit: the poll's number, and hashes.
pub const POINTS: usize = 6;

/// Two registers each.
const BYTES: u8 = 24;
const _: () = assert!(BYTES as usize == 4 * POINTS);

/// Ends with the process.
pub struct Plant {
    pub port: u16,
    issued: Arc<[AtomicU32; UNITS as usize]>,
}

impl Plant {
    /// On a free port of 127.0.0.1.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let issued: Arc<[AtomicU32; UNITS as usize]> = Arc::default();
        let counters = issued.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counters = counters.clone();
                std::thread::spawn(move || serve(stream, &counters));
            }
        });
        Self { port, issued }
    }

    /// Polls answered of a unit; it has issued the values of polls 1 to this.
    pub fn issued(&self, unit: u8) -> u32 {
        self.issued[usize::from(unit) - 1].load(Ordering::SeqCst)
    }
}

/// What point `point` of `unit` was in poll number `poll`.
pub fn value(unit: u8, point: usize, poll: u32) -> u32 {
    if point == 0 {
        return poll;
    }
    let mut hash = (u64::from(poll) << 16) ^ ((point as u64) << 8) ^ u64::from(unit);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash >> 32) as u32
}

/// Answers requests for all points of a unit at once.
fn serve(mut stream: TcpStream, issued: &[AtomicU32; UNITS as usize]) {
    let _ = stream.set_nodelay(true);
    let mut request = [0; 12];
    while stream.read_exact(&mut request).is_ok() {
        let (unit, count) = (request[6], u16::from_be_bytes([request[10], request[11]]));
        assert_eq!(count * 2, u16::from(BYTES), "the gateway reads a unit with one request");
        let poll = issued[usize::from(unit) - 1].fetch_add(1, Ordering::SeqCst) + 1;
        let mut reply = request[..4].to_vec();
        reply.extend_from_slice(&(3 + u16::from(BYTES)).to_be_bytes());
        reply.extend_from_slice(&[unit, request[7], BYTES]);
        for point in 0..POINTS {
            reply.extend_from_slice(&value(unit, point, poll).to_be_bytes());
        }
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}
