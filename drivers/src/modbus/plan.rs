//! Which requests a poll of a group sends: points merged into few requests, and what remains when a device refuses.
//!
//! Pure. Promises: every point is covered by exactly one request and never cut; no request exceeds what the protocol
//! or the device allows; on lines without transaction ids the requests of one device differ in shape where
//! a little over-reading can make them differ, so that a late answer can never pass for another block's.
//!
//! Registers that nobody asked for (gaps, over-reading) are guesses: a device may refuse them. [`Request::narrower`]
//! gives the same points without the guesses, then in halves, down to the one point that the device does not have.

use std::time::Duration;

use super::settings::{COILS_MAX, Device, REGISTERS_MAX};
use super::source::{Source, Table};

/// A point inside a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Its place among the samples of the poll.
    pub(super) slot: usize,
    /// Where it stands.
    pub(super) source: Source,
}

/// One read request and the points it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) table: Table,
    /// First address.
    pub(super) address: u16,
    /// Registers or coils, at least 1.
    pub(super) count: u16,
    /// In order of address.
    pub(super) items: Vec<Item>,
}

/// What the shape of an answer says about its request: function and number of data bytes.
pub(super) type Shape = (u8, u8);

impl Request {
    /// Data bytes of the answer.
    pub(super) fn data_bytes(&self) -> u8 {
        let bytes = if self.table.is_bits() { self.count.div_ceil(8) } else { self.count * 2 };
        u8::try_from(bytes).unwrap_or(u8::MAX)
    }

    pub(super) fn shape(&self) -> Shape {
        (self.table.function(), self.data_bytes())
    }

    /// As it is shown to a person.
    pub(super) fn words(&self, unit_id: u8) -> String {
        let (table, first) = (self.table.words(), self.address);
        let last = u32::from(first) + u32::from(self.count) - 1;
        if self.count == 1 {
            format!("unit {unit_id}, {} {first}", table.trim_end_matches('s'))
        } else {
            format!("unit {unit_id}, {table} {first} to {last} ({})", self.count)
        }
    }

    fn end(&self) -> u32 {
        u32::from(self.address) + u32::from(self.count)
    }

    /// Whether both read one point at least.
    pub(super) fn shares_points_with(&self, other: &Self) -> bool {
        self.items.iter().any(|item| other.items.iter().any(|own| own.slot == item.slot))
    }

    /// Whether it reads registers that nobody asked for.
    pub(super) fn has_guesses(&self) -> bool {
        let mut covered = u32::from(self.address);
        for item in &self.items {
            if u32::from(item.source.address) > covered {
                return true;
            }
            covered = covered.max(end(&item.source));
        }
        covered < self.end()
    }

    /// The same points with less to refuse: first without guesses, then cut in two between points. `None` when
    /// nothing is left to cut.
    pub(super) fn narrower(&self) -> Option<Vec<Self>> {
        if self.has_guesses() {
            return Some(merged(&self.items, &Device { max_gap: 0, ..Device::new(0) }));
        }
        let middle = u32::from(self.address) + u32::from(self.count / 2);
        let mut reach = 0;
        let mut cuts: Vec<(u32, usize)> = Vec::new();
        for (index, item) in self.items.iter().enumerate() {
            let start = u32::from(item.source.address);
            if index > 0 && start >= reach {
                cuts.push((start.abs_diff(middle), index));
            }
            reach = reach.max(end(&item.source));
        }
        let (_, cut) = cuts.into_iter().min()?;
        let (left, right) = self.items.split_at_checked(cut)?;
        Some([left, right].into_iter().flat_map(|items| merged(items, &Device::new(0))).collect())
    }
}

fn end(source: &Source) -> u32 {
    u32::from(source.address) + u32::from(source.registers())
}

/// The fewest requests, greedily from the lowest address, that the device allows.
pub(super) fn merged(items: &[Item], device: &Device) -> Vec<Request> {
    let mut items = items.to_vec();
    items.sort_by_key(|item| (item.source.table, item.source.address, item.source.registers(), item.slot));
    let mut requests: Vec<Request> = Vec::new();
    for item in items {
        let table = item.source.table;
        // A register carries as many bits as 16 coils do: gaps cost the same on the wire.
        let (limit, gap) = if table.is_bits() {
            (COILS_MAX, u32::from(device.max_gap) * 16)
        } else {
            (device.max_registers.clamp(1, REGISTERS_MAX), u32::from(device.max_gap))
        };
        if let Some(last) = requests.last_mut().filter(|last| last.table == table) {
            let joined = end(&item.source).max(last.end()) - u32::from(last.address);
            let near = u32::from(item.source.address) <= last.end() + gap;
            if let (true, Ok(count)) = (near && joined <= u32::from(limit), u16::try_from(joined)) {
                last.count = count;
                last.items.push(item);
                continue;
            }
        }
        let (address, count) = (item.source.address, item.source.registers().max(1));
        requests.push(Request { table, address, count, items: vec![item] });
    }
    requests
}

/// Makes the shapes of one device's requests differ where reading one or two registers more (eight or sixteen
/// coils) inside the table and the limits can do it.
pub(super) fn make_distinct<'a>(requests: impl Iterator<Item = &'a mut Request>, device: &Device) {
    let mut taken: Vec<Shape> = Vec::new();
    for request in requests {
        let (step, limit) = if request.table.is_bits() {
            (8, COILS_MAX)
        } else {
            (1, device.max_registers.clamp(1, REGISTERS_MAX))
        };
        let more = [0, step, 2 * step].into_iter().filter(|more| request.count + more <= limit);
        let wider = more.flat_map(|more| {
            let after = (request.end() + u32::from(more) <= 65_536).then_some(request.address);
            let before = request.address.checked_sub(more);
            [after, before].into_iter().flatten().map(move |address| (address, more))
        });
        let free = wider.map(|(address, more)| (address, request.count + more)).find(|(_, count)| {
            !taken.contains(&Request { count: *count, items: Vec::new(), ..*request }.shape())
        });
        if let Some((address, count)) = free {
            (request.address, request.count) = (address, count);
        }
        taken.push(request.shape());
    }
}

/// How long a serial line is in use for a request and its answer: 8 characters, the turnaround or the silence before
/// the answer, 5 characters and the data, and the silence after it.
pub(super) fn wire_time(
    request: &Request,
    character: Duration,
    silence: Duration,
    turnaround: Duration,
) -> Duration {
    character * (8 + 5 + u32::from(request.data_bytes())) + turnaround.max(silence) + silence
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::source::{Order, Type};
    use super::*;

    fn item(slot: usize, table: Table, address: u16, kind: Type) -> Item {
        Item { slot, source: Source { table, address, kind, order: Order::BIG } }
    }

    fn inputs(places: &[(u16, Type)]) -> Vec<Item> {
        places
            .iter()
            .enumerate()
            .map(|(slot, &(address, kind))| item(slot, Table::Input, address, kind))
            .collect()
    }

    fn spans(requests: &[Request]) -> Vec<(u16, u16)> {
        requests.iter().map(|r| (r.address, r.count)).collect()
    }

    fn any_item() -> impl Strategy<Value = (Table, u16, Type)> {
        let kind = prop_oneof![
            Just(Type::U16),
            Just(Type::F32),
            Just(Type::F64),
            Just(Type::Bit(3)),
            (1_u16..20).prop_map(Type::Text)
        ];
        (0_u8..4, prop_oneof![0_u16..300, 65_400_u16..=65_516], kind).prop_map(|(table, address, kind)| {
            match table {
                0 => (Table::Coil, address, Type::Bool),
                1 => (Table::Discrete, address, Type::Bool),
                2 => (Table::Holding, address, kind),
                _ => (Table::Input, address, kind),
            }
        })
    }

    fn check(requests: &[Request], points: usize, limit: u16) -> Result<(), TestCaseError> {
        let mut seen = vec![0; points];
        for request in requests {
            let limit = if request.table.is_bits() { COILS_MAX } else { limit.max(20) };
            prop_assert!(request.count >= 1 && request.count <= limit && request.end() <= 65_536);
            for item in &request.items {
                seen[item.slot] += 1;
                prop_assert_eq!(item.source.table, request.table);
                prop_assert!(item.source.address >= request.address && end(&item.source) <= request.end());
            }
        }
        prop_assert!(seen.iter().all(|&times| times == 1), "each point exactly once: {:?}", seen);
        Ok(())
    }

    proptest! {
        #[test]
        fn every_point_is_covered_by_exactly_one_request_within_the_limits(
            points in prop::collection::vec(any_item(), 0..60), max_registers in 1_u16..=125, max_gap in 0_u16..=20,
        ) {
            let device = Device { unit_id: 1, max_registers, max_gap };
            let items: Vec<Item> =
                points.iter().enumerate().map(|(slot, &(table, address, kind))| item(slot, table, address, kind)).collect();
            let mut requests = merged(&items, &device);
            check(&requests, points.len(), max_registers)?;
            make_distinct(requests.iter_mut(), &device);
            check(&requests, points.len(), max_registers)?;
            // Refused again and again, it still asks for every point, until nothing can be cut.
            for _ in 0..12 {
                requests = requests.into_iter().flat_map(|r| r.narrower().unwrap_or_else(|| vec![r])).collect();
                check(&requests, points.len(), max_registers)?;
            }
            prop_assert!(requests.iter().all(|request| request.narrower().is_none() && !request.has_guesses()));
        }
    }

    #[test]
    fn near_points_share_a_request_and_far_ones_do_not() {
        let device = Device::new(1);
        let items =
            inputs(&[(52, Type::F32), (0, Type::F32), (60, Type::U16), (69, Type::U16), (79, Type::U16)]);
        assert_eq!(spans(&merged(&items, &device)), [(0, 2), (52, 18), (79, 1)]);
        let none = Device { max_gap: 0, ..device };
        assert_eq!(merged(&items, &none).len(), 5);
    }

    #[test]
    fn a_request_never_exceeds_what_the_device_takes_and_never_cuts_a_point() {
        let items = inputs(&[(0, Type::F64), (4, Type::F64), (8, Type::F64)]);
        let device = Device { max_registers: 10, ..Device::new(1) };
        assert_eq!(spans(&merged(&items, &device)), [(0, 8), (8, 4)]);
    }

    #[test]
    fn blocks_of_one_device_get_shapes_of_their_own() {
        let device = Device::new(1);
        let items = inputs(&[(0, Type::F32), (100, Type::F32), (200, Type::F32), (65_534, Type::F32)]);
        let mut requests = merged(&items, &device);
        make_distinct(requests.iter_mut(), &device);
        assert_eq!(
            spans(&requests),
            [(0, 2), (100, 3), (200, 4), (65_534, 2)],
            "three can differ, the fourth cannot"
        );
        let mut bits: Vec<Request> =
            merged(&[item(0, Table::Coil, 0, Type::Bool), item(1, Table::Coil, 1_000, Type::Bool)], &device);
        make_distinct(bits.iter_mut(), &device);
        assert_ne!(bits[0].shape(), bits[1].shape());
    }

    #[test]
    fn a_refused_request_gives_up_its_guesses_first_and_then_halves() {
        let items = inputs(&[(0, Type::U16), (1, Type::U16), (5, Type::F32)]);
        let request = merged(&items, &Device::new(1)).remove(0);
        assert!(request.has_guesses());
        let exact = request.narrower().unwrap();
        assert_eq!(spans(&exact), [(0, 2), (5, 2)]);
        assert_eq!(spans(&exact[0].narrower().unwrap()), [(0, 1), (1, 1)]);
        assert_eq!(exact[1].narrower(), None);
    }

    #[test]
    fn a_request_is_named_as_a_technician_reads_it() {
        let request = merged(
            &inputs(&[(52, Type::F32), (74, Type::F32), (60, Type::F32), (66, Type::F32)]),
            &Device::new(1),
        );
        assert_eq!(request[0].words(1), "unit 1, input registers 52 to 75 (24)");
        assert_eq!(
            merged(&inputs(&[(7, Type::U16)]), &Device::new(1))[0].words(9),
            "unit 9, input register 7"
        );
    }

    #[test]
    fn the_wire_time_is_the_formula() {
        let request = Request { table: Table::Holding, address: 0, count: 10, items: Vec::new() };
        let character = Duration::from_nanos(11 * 1_000_000_000 / 9_600);
        let polls = |turnaround| {
            1.0 / wire_time(&request, character, character * 7 / 2, Duration::from_millis(turnaround))
                .as_secs_f64()
        };
        assert!((polls(0) - 21.8).abs() < 0.05 && (polls(20) - 16.2).abs() < 0.05);
    }
}
