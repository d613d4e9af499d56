//! Same log, same bytes: the committed part of the log zone is identical on every healed replica.

use kimberlite_crypto::checksum;
use kimberlite_io::{Zone, sectors};
use kimberlite_types::Instant;
use kimberlite_types::limits::PREPARE_HEADER_SIZE;

use super::{Canon, Lives, hold};
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "log_bytes";
const HEADER: &str = "the header of every committed op is stored as it was committed";
const BODY: &str = "the body of every committed op is stored as it was committed";
const PADDING: &str = "a prepare is padded with zeros to its sector";

/// Compares logs on the disks with the committed prepares: all are equal to them, so to each other.
#[derive(Default)]
pub struct LogBytes {
    lives: Lives,
    canon: Canon,
    compared: u64,
}

impl Checker for LogBytes {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[HEADER, BODY, PADDING]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        self.lives.observe(seen);
        self.canon.observe(seen);
        Ok(())
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), Violation> {
        for replica in &end.core {
            for header in self.canon.up_to(self.lives.executed(*replica)) {
                let (op, place, size) = (header.op, header.place, header.size as usize);
                let stored = (end.disk)(*replica, Zone::Log, place, sectors(size as u64) as usize);
                self.compared += 1;
                hold!(
                    stored[..PREPARE_HEADER_SIZE] == header.encode(),
                    HEADER,
                    *replica,
                    op,
                    "the header at {place} of {replica:?} is not that of op {op}"
                );
                hold!(
                    checksum(&stored[PREPARE_HEADER_SIZE..size]) == header.body_checksum,
                    BODY,
                    *replica,
                    op,
                    "the {size} bytes at {place} of {replica:?} are not those of op {op}"
                );
                hold!(
                    stored[size..].iter().all(|byte| *byte == 0),
                    PADDING,
                    *replica,
                    op,
                    "op {op} at {place} of {replica:?} is followed by other bytes than zeros"
                );
            }
        }
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;

    #[test]
    fn the_committed_bytes_pass_and_any_other_byte_is_noticed() {
        let history = History::small(3);
        let header = *history.header(3);
        let (place, size) = (header.place, u64::from(header.size));
        let cases = [
            (None, sectors(place + size)),
            (Some(HEADER), place),
            (Some(HEADER), place + 500),
            (Some(BODY), place + 512),
            (Some(BODY), place + size - 1),
            (Some(PADDING), place + size),
            (Some(PADDING), sectors(place + size) - 1),
        ];
        for (rule, at) in cases {
            // The fourth op is not executed, so its bytes do not count.
            let mut checker = LogBytes::default();
            for op in 1..=3 {
                history.play_op(&mut checker, op).unwrap();
            }
            let result = finish_on(&mut checker, &history, |disks| disks.write(1, Zone::Log, at, &[0xa5]));
            match rule {
                None => {
                    result.unwrap();
                    assert_eq!(checker.compared(), 9);
                }
                Some(rule) => assert_broken(&checker_rules(&checker), result, rule),
            }
        }
    }
}
