//! A random generator that gives the same numbers for the same seed: xorshift64*, by Marsaglia and Vigna.

use std::{env, fs};

/// Returns the seeds to run: only `MINIMIO_MODEL_SEED` if that variable is set, otherwise the first
/// `MINIMIO_MODEL_SEQUENCES / for_each` (default: `500 / for_each`). A test that is slower than the model passes a
/// larger `for_each`, and so runs fewer seeds.
///
/// Each seed is written to the file `name` in `target/tmp` before it runs, because a crashed or hanging test cannot
/// print it.
pub fn seeds(for_each: u64, name: &str) -> impl Iterator<Item = u64> {
    let number = |name| env::var(name).ok().map(|value| value.parse().expect(name));
    let seeds = match number("MINIMIO_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MINIMIO_MODEL_SEQUENCES").unwrap_or(500) / for_each,
    };
    let file = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    seeds.inspect(move |seed| {
        fs::write(&file, format!("MINIMIO_MODEL_SEED={seed}\n")).expect(&file);
    })
}

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        // Neighbouring seeds must give different sequences, and the state must not be zero, which would stay zero.
        Random((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns a number from 0 up to but not including `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (((self.next() >> 32) * end as u64) >> 32) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
