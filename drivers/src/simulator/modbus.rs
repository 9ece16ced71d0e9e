//! A Modbus server of the simulated plant: registers, the answers to requests, RTU and TCP envelopes.
//!
//! Written without the library's servers, which the shipped binary does not carry; one function answers both
//! envelopes. It reads only (functions 1 to 4), as the plant is not to be moved. Tests that prove the drivers use
//! foreign servers, not this one.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Pty;

/// Which table a register stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Function 1.
    Coil,
    /// Function 2.
    Discrete,
    /// Function 3.
    Holding,
    /// Function 4.
    Input,
}

/// The registers of one unit, as they are at one moment. Between and up to 16 behind those that are set, there are
/// zeros; beyond, exception 2.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    values: BTreeMap<(Table, u16), u16>,
}

impl Registers {
    /// Sets one register, or a coil to 0 or 1.
    pub fn set(&mut self, table: Table, address: u16, value: u16) {
        self.values.insert((table, address), value);
    }

    /// Sets a 32-bit float, high word first.
    pub fn set_f32(&mut self, table: Table, address: u16, value: f64) {
        #[allow(clippy::cast_possible_truncation)]
        let bits = (value as f32).to_bits();
        self.set_u32(table, address, bits);
    }

    /// Sets a 32-bit integer, high word first.
    pub fn set_u32(&mut self, table: Table, address: u16, value: u32) {
        let [a, b, c, d] = value.to_be_bytes();
        self.set(table, address, u16::from_be_bytes([a, b]));
        self.set(table, address.saturating_add(1), u16::from_be_bytes([c, d]));
    }

    /// Sets a fraction as a 16-bit signed integer of its tenths.
    pub fn set_tenths(&mut self, table: Table, address: u16, value: f64) {
        #[allow(clippy::cast_possible_truncation)]
        let tenths = (value * 10.0).round().clamp(-32_768.0, 32_767.0) as i16;
        self.set(table, address, tenths.cast_unsigned());
    }

    fn get(&self, table: Table, first: u16, count: u16) -> Option<Vec<u16>> {
        let end = u32::from(first) + u32::from(count);
        let last = self.values.range((table, 0)..=(table, u16::MAX)).next_back()?.0.1;
        (end <= u32::from(last) + 17).then(|| {
            (0..count)
                .map(|i| self.values.get(&(table, first.wrapping_add(i))).copied().unwrap_or(0))
                .collect()
        })
    }

    /// The answer to a request, both without envelope (Modbus Application Protocol V1.1b3, 6.1 to 6.4 and 7).
    pub fn answer(&self, request: &[u8]) -> Vec<u8> {
        let &[function, a, b, c, d] = request else {
            return vec![request.first().copied().unwrap_or_default() | 0x80, 3];
        };
        let (table, most) = match function {
            1 => (Table::Coil, 2_000),
            2 => (Table::Discrete, 2_000),
            3 => (Table::Holding, 125),
            4 => (Table::Input, 125),
            _ => return vec![function | 0x80, 1],
        };
        let (first, count) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if !(1..=most).contains(&count) {
            return vec![function | 0x80, 3];
        }
        let Some(values) = self.get(table, first, count) else { return vec![function | 0x80, 2] };
        let body: Vec<u8> = if function <= 2 {
            values
                .chunks(8)
                .map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit != 0)))
                .collect()
        } else {
            values.iter().flat_map(|value| value.to_be_bytes()).collect()
        };
        let mut answer = vec![function, u8::try_from(body.len()).unwrap_or(u8::MAX)];
        answer.extend(body);
        answer
    }
}

/// The registers of a unit now; `None` if no such unit is there, or it is silent.
pub type Units = Arc<dyn Fn(u8) -> Option<Registers> + Send + Sync>;

/// Answers RTU requests on a pty until it fails, with a meter's turnaround and the time that bytes need on the wire.
pub(super) async fn serve_rtu(pty: Pty, units: Units, character_time: Duration) -> io::Result<()> {
    let mut frame = Vec::new();
    let mut bytes = [0; 256];
    loop {
        // Silence ends a frame; a pty delivers each write at once, so that a short wait is enough.
        let wait = if frame.is_empty() { Duration::from_secs(3_600) } else { Duration::from_millis(5) };
        match tokio::time::timeout(wait, pty.read(&mut bytes)).await {
            Ok(read) => {
                frame.extend_from_slice(bytes.get(..read?).unwrap_or_default());
                if frame.len() < 8 {
                    continue;
                }
            }
            Err(_silence) => {}
        }
        if let Some((unit, request)) = open_rtu(&frame)
            && let Some(registers) = units(unit)
        {
            let mut answer = vec![unit];
            answer.extend(registers.answer(request));
            let [low, high] = crc(&answer).to_le_bytes();
            answer.extend([low, high]);
            let on_the_wire = character_time * u32::try_from(frame.len() + answer.len()).unwrap_or(u32::MAX);
            tokio::time::sleep(on_the_wire + Duration::from_millis(6)).await;
            pty.write(&answer)?;
        }
        frame.clear();
    }
}

fn open_rtu(frame: &[u8]) -> Option<(u8, &[u8])> {
    let (body, given) = frame.split_last_chunk::<2>()?;
    let (unit, request) = body.split_first()?;
    (crc(body) == u16::from_le_bytes(*given)).then_some((*unit, request))
}

/// CRC-16 of Modbus over Serial Line V1.02, 6.2.2: polynomial 0xA001, reflected, from 0xFFFF.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}

/// Answers Modbus TCP requests on a listener until it fails.
pub(super) async fn serve_tcp(listener: TcpListener, units: Units) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        let units = units.clone();
        connections.spawn(async move { serve_connection(stream, units).await });
    }
}

/// A client that sends nonsense, or leaves, ends its connection.
async fn serve_connection(mut stream: TcpStream, units: Units) -> io::Result<()> {
    loop {
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        let [t0, t1, 0, 0, l0, l1, unit] = head else { return Ok(()) };
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if !(2..=254).contains(&length) {
            return Ok(());
        }
        let mut request = vec![0; length - 1];
        stream.read_exact(&mut request).await?;
        let Some(registers) = units(unit) else { continue };
        let answer = registers.answer(&request);
        let [l0, l1] = u16::try_from(answer.len() + 1).unwrap_or(u16::MAX).to_be_bytes();
        let mut frame = vec![t0, t1, 0, 0, l0, l1, unit];
        frame.extend(answer);
        tokio::time::sleep(Duration::from_millis(2)).await;
        stream.write_all(&frame).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_the_specifications() {
        // Modbus over Serial Line V1.02, appendix B: unit 2, function 7 gives 0x1241, low byte first on the wire.
        assert_eq!(crc(&[2, 7]), 0x1241);
        assert_eq!(open_rtu(&[2, 7, 0x41, 0x12]), Some((2, &[7][..])));
        assert_eq!(open_rtu(&[2, 7, 0x41, 0x13]), None);
    }

    #[test]
    fn requests_are_answered_as_specified() {
        let mut registers = Registers::default();
        registers.set_f32(Table::Input, 52, 1_520.0);
        registers.set(Table::Coil, 0, 1);
        registers.set(Table::Coil, 9, 1);
        registers.set_tenths(Table::Holding, 0, -4.5);
        assert_eq!(registers.answer(&[4, 0, 52, 0, 2]), [4, 4, 0x44, 0xbe, 0, 0]);
        assert_eq!(registers.answer(&[1, 0, 0, 0, 10]), [1, 2, 0b0000_0001, 0b0000_0010]);
        assert_eq!(registers.answer(&[3, 0, 0, 0, 1]), [3, 2, 0xff, 0xd3]);
        assert_eq!(registers.answer(&[4, 0, 200, 0, 2]), [0x84, 2], "past the end");
        assert_eq!(registers.answer(&[4, 0, 0, 0, 126]), [0x84, 3], "too many");
        assert_eq!(registers.answer(&[2, 0, 0, 0, 1]), [0x82, 2], "an empty table");
        assert_eq!(registers.answer(&[6, 0, 0, 0, 1]), [0x86, 1], "nothing can be written");
        assert_eq!(registers.answer(&[]), [0x80, 3]);
    }
}
