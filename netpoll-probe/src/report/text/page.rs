//! Lines of a known width, with or without colors.

use super::super::Options;

/// Below this a report is not narrowed any further.
const MIN_WIDTH: usize = 76;
/// Sentences are not wider than this: longer lines are hard to read.
const MAX_SENTENCE_WIDTH: usize = 110;

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Strong,
    Dim,
    Warning,
    Peer,
    Pickup,
    Queue,
}

impl Tone {
    /// SGR parameters (ECMA-48, 8.3.117) that every terminal knows.
    const fn sgr(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "1",
            Self::Dim => "2",
            Self::Warning => "1;31",
            Self::Peer => "34",
            Self::Pickup => "33",
            Self::Queue => "31",
        }
    }
}

/// The report's text so far.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    color: bool,
    width: usize,
}

impl Page {
    pub(super) fn new(options: &Options) -> Self {
        Self { text: String::new(), color: options.color, width: options.width.max(MIN_WIDTH) }
    }

    /// Columns of a line.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// All of it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// An empty line.
    pub(super) fn blank(&mut self) {
        self.text.push('\n');
    }

    /// A line of pieces, without spaces at its end.
    pub(super) fn line(&mut self, pieces: &[(&str, Tone)]) {
        let last = pieces.iter().rposition(|(piece, _)| !piece.trim_end().is_empty());
        for (index, (piece, tone)) in pieces.iter().take(last.map_or(0, |last| last + 1)).enumerate() {
            let piece = if Some(index) == last { piece.trim_end() } else { piece };
            self.piece(piece, *tone);
        }
        self.blank();
    }

    /// A title after an empty line.
    pub(super) fn title(&mut self, title: &str) {
        self.blank();
        self.line(&[(title, Tone::Strong)]);
    }

    /// Text, wrapped; its first line begins with `label`, the others with as many spaces.
    pub(super) fn paragraph(&mut self, label: &str, text: &str, tone: Tone) {
        let indent = label.chars().count();
        let width = self.width.min(MAX_SENTENCE_WIDTH).saturating_sub(indent);
        for (index, line) in wrap(text, width).iter().enumerate() {
            let start = if index == 0 { label.to_owned() } else { " ".repeat(indent) };
            self.line(&[(&start, Tone::Strong), (line, tone)]);
        }
    }

    fn piece(&mut self, piece: &str, tone: Tone) {
        let sgr = tone.sgr();
        if !self.color || sgr.is_empty() || piece.trim().is_empty() {
            self.text.push_str(piece);
        } else {
            self.text.push_str(&format!("\x1b[{sgr}m{piece}\x1b[0m"));
        }
    }
}

/// Breaks text between words. A non-breaking space keeps a number with its unit, and becomes a space.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut used = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        match lines.last_mut() {
            Some(line) if used + 1 + length <= width => {
                line.push(' ');
                line.push_str(word);
                used += 1 + length;
            }
            _ => {
                lines.push(word.to_owned());
                used = length;
            }
        }
    }
    lines.iter().map(|line| line.replace('\u{a0}', " ")).collect()
}

/// A value whose spaces do not break.
pub(super) fn solid(value: impl std::fmt::Display) -> String {
    value.to_string().replace(' ', "\u{a0}")
}

/// Cut to a width, and marked when it was.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_between_words() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("averyveryverylongword x", 5), ["averyveryverylongword", "x"]);
        assert_eq!(wrap(&format!("took {}", solid("12 ms")), 7), ["took", "12 ms"]);
        assert_eq!(wrap("", 5), [""; 0]);
    }

    #[test]
    fn colors_only_when_asked_for() {
        for (color, text) in [(false, "a b\n"), (true, "\u{1b}[1ma\u{1b}[0m b\n")] {
            let mut page = Page::new(&Options { color, ..Options::default() });
            page.line(&[("a", Tone::Strong), (" b  ", Tone::Plain), ("   ", Tone::Warning)]);
            assert_eq!(page.text(), text);
        }
    }

    #[test]
    fn cuts_and_says_so() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
    }
}
