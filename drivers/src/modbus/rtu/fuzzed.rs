//! The engine in the hands of a fuzzer (`tests/fuzz`), which cannot reach into the crate. Not in any other build.

use std::time::{Duration, Instant};

use super::crc::crc;
use super::engine::{Engine, Step, Timing};
use crate::modbus::settings::Echo;
use crate::modbus::transaction::Ask;

/// Plays a script: each byte says what happens next (time passes, bytes come, sealed or not, a request is begun), the bytes
/// behind it how.
///
/// # Panics
/// If an answer is believed that has not been received whole since its request, with a right check sum.
pub fn line(script: &[u8]) {
    let Some((how, mut rest)) = script.split_first() else { return };
    let character = Duration::from_micros(1_042);
    let mut engine = Engine::new(Timing {
        character,
        silence: character * 7 / 2,
        latency: Duration::from_millis(20),
        timeout: Duration::from_millis(500),
        hold_off: Duration::from_millis(2_200),
        paced: how & 1 == 1,
        echo: [Echo::Off, Echo::On, Echo::Auto][usize::from(how >> 1) % 3],
    });
    let mut now = Instant::now();
    let (mut asked, mut heard) = (None, Vec::new());
    while let [what, amount, behind @ ..] = rest {
        rest = behind;
        match what % 8 {
            0 => now += Duration::from_micros(u64::from(*amount) * 100),
            1 => now += Duration::from_millis(u64::from(*amount) * 20),
            kind @ 2..=5 => {
                let (bytes, behind) = rest.split_at(usize::from(*amount).min(rest.len()));
                rest = behind;
                let mut bytes = bytes.to_vec();
                if kind > 3 {
                    bytes.extend(crc(&bytes).to_le_bytes());
                }
                heard.extend_from_slice(&bytes);
                engine.receive(&bytes, now);
            }
            _ => {
                let (unit, function, registers) = (amount & 3, amount >> 2 & 3, u16::from(amount >> 4) + 1);
                let data_bytes = if function < 2 { registers.div_ceil(8) } else { registers * 2 };
                let data_bytes = u8::try_from(data_bytes).expect("at most 32");
                let ask = Ask { unit, function: function + 1, address: 7, count: registers, data_bytes };
                if engine.begin(ask, now, now + Duration::from_secs(1)).is_ok() {
                    (asked, heard) = (Some(ask), Vec::new());
                }
            }
        }
        for _ in 0..4 {
            match engine.poll(now) {
                Step::Write(_) => {}
                Step::Wait(until) => {
                    assert!(until >= now, "a wait for what is over");
                    break;
                }
                Step::Done(Ok(answer)) => {
                    let Some(ask) = asked.take() else { panic!("an answer to nothing") };
                    let mut frame = match answer.exception {
                        Some(code) => vec![ask.unit, ask.function | 0x80, code],
                        None => [&[ask.unit, ask.function, ask.data_bytes], engine.data()].concat(),
                    };
                    assert!(answer.exception.is_some() || engine.data().len() == usize::from(ask.data_bytes));
                    frame.extend(crc(&frame).to_le_bytes());
                    assert!(heard.windows(frame.len()).any(|heard| *heard == frame), "never received");
                }
                Step::Done(Err(_)) => asked = None,
            }
        }
    }
}
