//! The fences of blocks of code in Markdown.

/// A line that starts or ends a block of code: the indent, the letter and the number of letters of the fence, and the
/// rest of the line.
pub struct Fence<'a> {
    pub indent: usize,
    letter: char,
    length: usize,
    pub info: &'a str,
}

impl<'a> Fence<'a> {
    /// The fence in `line`, if it is one.
    pub fn of(line: &'a str) -> Option<Self> {
        let text = line.trim_start();
        let letter = text.chars().next().filter(|letter| matches!(letter, '`' | '~'))?;
        let info = text.trim_start_matches(letter);
        let length = text.len() - info.len();
        let is_fence = length >= 3 && !(letter == '`' && info.contains('`'));
        is_fence.then(|| Self { indent: line.len() - text.len(), letter, length, info: info.trim() })
    }

    /// Whether `line` ends the block that this fence starts.
    pub fn is_ended_by(&self, line: &str) -> bool {
        let end = Fence::of(line);
        end.is_some_and(|end| end.letter == self.letter && end.length >= self.length && end.info.is_empty())
    }
}
