//! Decisions drawn from the octets of the input, so that the fuzzer steers a sequence of steps.

/// The octets not yet used. Once they are used up, every decision is the first choice.
#[derive(Clone, Debug)]
pub struct Draw<'a> {
    rest: &'a [u8],
}

impl<'a> Draw<'a> {
    /// Draws from the whole input.
    pub const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// Whether no octet is left.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next octet; 0 at the end.
    pub fn octet(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    /// A number below `bound`, which is 1 to 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.octet()) % bound
    }

    /// One of the choices.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// True once in `times`.
    pub fn is_rare(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    /// Up to 255 octets: as many as the next octet says and are there.
    pub fn octets(&mut self) -> &'a [u8] {
        let length = usize::from(self.octet()).min(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}
