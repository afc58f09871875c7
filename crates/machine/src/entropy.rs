//! Randomness: the host's, or a seeded generator where a run must repeat.

/// Where random bytes come from.
#[derive(Debug)]
pub enum Entropy {
    /// The host's generator.
    Host,
    /// A splitmix64 stream: the same seed gives the same bytes.
    Seeded(u64),
}

impl Entropy {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// The host has no random generator to give.
    pub fn fill(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        match self {
            Self::Host => getrandom::fill(bytes).map_err(std::io::Error::from),
            Self::Seeded(state) => {
                for chunk in bytes.chunks_mut(8) {
                    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let mut z = *state;
                    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                    chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
                }
                Ok(())
            }
        }
    }

    /// The next 64 random bits.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub fn next_u64(&mut self) -> std::io::Result<u64> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats() {
        let (mut a, mut b, mut c) = (Entropy::Seeded(1), Entropy::Seeded(1), Entropy::Seeded(2));
        let first = a.next_u64().unwrap();
        assert_eq!(first, b.next_u64().unwrap());
        assert_ne!(first, c.next_u64().unwrap());
        assert_ne!(first, a.next_u64().unwrap());
    }
}
