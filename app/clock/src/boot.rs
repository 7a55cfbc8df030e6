//! Which life of the machine this is, and for how long it lasts. With it footage that nobody could give a time yet is placed once
//! the clock is set, also by another process, and it is known when the machine was off in between.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// This life of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Drawn by the kernel at each start; 0 where it does not say.
    pub id: u128,
    /// Time since the machine started, suspended or not.
    pub up: Duration,
}

impl Boot {
    /// What the kernel says.
    pub(crate) fn of_machine() -> Self {
        static ID: OnceLock<u128> = OnceLock::new();
        let id = *ID.get_or_init(|| {
            let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
            parse(&text).unwrap_or(0)
        });
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Self { id, up: Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0)) }
    }
}

/// A UUID such as `3f2a6c1e-5b7d-4e8f-9a0b-1c2d3e4f5a6b`.
fn parse(text: &str) -> Option<u128> {
    let digits = text.trim().replace('-', "");
    let plain = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(&digits, 16).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_which_life_this_is_and_how_long_it_lasts() {
        let (first, second) = (Boot::of_machine(), Boot::of_machine());
        assert_ne!(first.id, 0, "Linux always says it");
        assert_eq!(first.id, second.id);
        assert!(second.up >= first.up && first.up > Duration::ZERO, "{first:?} {second:?}");
    }

    #[test]
    fn only_a_uuid_is_an_id() {
        assert_eq!(
            parse("3f2a6c1e-5b7d-4e8f-9a0b-1c2d3e4f5a6b\n"),
            Some(0x3f2a_6c1e_5b7d_4e8f_9a0b_1c2d_3e4f_5a6b)
        );
        for text in ["", "-", "+f2a6c1e5b7d4e8f9a0b1c2d3e4f5a6b", "3f2a6c1e-5b7d-4e8f-9a0b-1c2d3e4f5a6"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
