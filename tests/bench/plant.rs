//! Ten Modbus TCP devices in threads, answering at once: what is measured is the gateway, not the plant.
//!
//! Input register 0 of a device counts its polls, so that a value at the subscriber names the poll it came from, and
//! the moment when the last byte of that poll's reply was handed to the kernel is known. The other registers move a
//! little from poll to poll, as a plant's do.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// When the reply to poll `counter` of `device` was sent.
pub type Sent = Arc<Mutex<HashMap<(usize, u16), Instant>>>;

pub struct Plant {
    pub ports: Vec<u16>,
    pub sent: Sent,
}

impl Plant {
    pub fn start(devices: usize) -> Self {
        let sent = Sent::default();
        let ports = (0..devices)
            .map(|device| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let port = listener.local_addr().unwrap().port();
                let sent = sent.clone();
                std::thread::spawn(move || {
                    for stream in listener.incoming().map_while(Result::ok) {
                        let sent = sent.clone();
                        std::thread::spawn(move || serve(device, stream, &sent));
                    }
                });
                port
            })
            .collect();
        Self { ports, sent }
    }
}

/// Answers read requests until the client goes.
fn serve(device: usize, mut stream: TcpStream, sent: &Sent) {
    stream.set_nodelay(true).unwrap();
    let mut registers: Vec<u16> = (0..2000).map(|i| 1000 + (i % 13) * 37).collect();
    let mut noise = 0x9e37_79b9_u32.wrapping_mul(device as u32 + 1);
    let mut request = [0; 12];
    let mut reply = Vec::with_capacity(300);
    while stream.read_exact(&mut request).is_ok() {
        let start = u16::from_be_bytes([request[8], request[9]]);
        let count = u16::from_be_bytes([request[10], request[11]]);
        if start == 0 {
            registers[0] = registers[0].wrapping_add(1);
        }
        let from = usize::from(start);
        reply.clear();
        reply.extend_from_slice(&request[..4]);
        reply.extend_from_slice(&(3 + count * 2).to_be_bytes());
        reply.extend_from_slice(&[request[6], request[7], (count * 2) as u8]);
        for (i, register) in registers.iter_mut().enumerate().skip(from).take(usize::from(count)) {
            if i > 0 {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *register = register.wrapping_add(((noise >> 24) % 3) as u16).wrapping_sub(1);
            }
            reply.extend_from_slice(&register.to_be_bytes());
        }
        if stream.write_all(&reply).is_err() {
            return;
        }
        sent.lock().unwrap().insert((device, registers[0]), Instant::now());
    }
}
