//! The octets of our answers, which transactions keep for retransmissions.

use bytes::{Bytes, BytesMut};

/// Octets of a block: about a hundred answers.
const BLOCK_BYTES: usize = 65_536;

/// Puts answers one after the other into blocks of memory. They end in the order in which they were given,
/// all after the same time, so a block is free soon after its first answer; and to take and give back one
/// block costs less than a hundred pieces do.
#[derive(Debug, Default)]
pub(super) struct Answers {
    block: BytesMut,
}

impl Answers {
    /// A copy of a final answer. Its block lives as long as the last answer in it: 32 s (Timer J or H) at
    /// most.
    pub(super) fn keep(&mut self, answer: &[u8]) -> Bytes {
        if self.block.capacity() < answer.len() {
            self.block = BytesMut::with_capacity(BLOCK_BYTES.max(answer.len()));
        }
        self.block.extend_from_slice(answer);
        self.block.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_stay_what_they_were_however_many_follow() {
        let mut answers = Answers::default();
        let octets = (0..=u8::MAX).cycle();
        let texts: Vec<Vec<u8>> =
            octets.zip(0..1_000_usize).map(|(octet, at)| vec![octet; 1 + at * 7 % 3_000]).collect();

        let kept: Vec<Bytes> = texts.iter().map(|text| answers.keep(text)).collect();
        let large = answers.keep(&vec![7; 2 * BLOCK_BYTES]);

        assert!(kept.iter().zip(&texts).all(|(kept, text)| kept == text));
        assert_eq!(large.len(), 2 * BLOCK_BYTES);
    }

    #[test]
    fn a_block_holds_many_answers() {
        let mut answers = Answers::default();
        let first = answers.keep(&[1; 600]);
        let second = answers.keep(&[2; 600]);

        assert_eq!(first.as_ptr().wrapping_add(600), second.as_ptr());
    }
}
