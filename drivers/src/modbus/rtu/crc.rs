//! The check sum of RTU frames: CRC-16, polynomial 0xA001 (reflected), initial value 0xFFFF, sent low byte first
//! (Modbus over Serial Line V1.02, 6.2.2).

const TABLE: [u16; 256] = table();

#[allow(clippy::cast_possible_truncation, clippy::indexing_slicing)] // evaluated by the compiler
const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u16;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// The check sum of `bytes`.
pub(crate) fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        let low = crc ^ u16::from(*byte);
        crc >> 8 ^ TABLE.get(usize::from(low & 0xff)).copied().unwrap_or_default()
    })
}

/// Whether the last two bytes are the check sum of those before them.
pub(crate) fn is_right(frame: &[u8]) -> bool {
    match frame.split_last_chunk::<2>() {
        Some((body, sum)) => crc(body).to_le_bytes() == *sum,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogues_check_value_and_a_known_frame() {
        assert_eq!(crc(b"123456789"), 0x4b37);
        // Unit 1, function 3, address 0, 10 registers.
        assert!(is_right(&[0x01, 0x03, 0x00, 0x00, 0x00, 0x0a, 0xc5, 0xcd]));
        assert!(!is_right(&[0x01, 0x03, 0x00, 0x00, 0x00, 0x0a, 0xcd, 0xc5]));
        assert!(!is_right(&[0x01]));
    }
}
