//! Any bytes on a Modbus RTU line, in any pieces: nothing panics, and an answer is believed only if its bytes prove it.
#![no_main]

use fieldspool_drivers::modbus::fuzzed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzzed::line(data));
