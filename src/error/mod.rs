//! The one error type of everything that touches configuration, files or names.

mod printable;

pub use printable::Printable;
use std::fmt;
use std::path::{Path, PathBuf};

/// What went wrong, where, and the cure.
///
/// The `forward` of a module returns [`candle_core::Result`], as everywhere in candle; what touches
/// configuration, files or names returns this. A candle error converts into it with `?`.
///
/// A message is one line and [`Printable`]: what a file, a name or a server put into it moves no cursor and forges no line.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A configuration field holds a value that cannot work.
    Config {
        /// The field, as it is written in a configuration.
        field: String,
        /// What would have been accepted.
        expected: String,
        /// What came.
        got: String,
        /// What to do about it.
        cure: String,
    },
    /// A file's content is not what it should be.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        cure: String,
    },
    /// The operating system refused to read or write.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done, as a verb: "read", "write", "create the folder".
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A checkpoint lacks tensors that the model needs, or holds them in other shapes.
    Checkpoint(String),
    /// An adapter was made for another backbone, other tasks or another configuration.
    AdapterMismatch {
        /// The adapter file.
        path: PathBuf,
        /// One sentence for each difference.
        differences: Vec<String>,
    },
    /// The backbone that an adapter was made for cannot be had.
    Backbone {
        /// The adapter file.
        adapter: PathBuf,
        /// The backbone: sizes, digest, and the name of the file or the model that it was read from.
        wanted: String,
        /// Why not, and the cure.
        source: Box<Error>,
    },
    /// A configuration beside the weights names another architecture.
    NotSwin {
        /// The configuration file.
        path: PathBuf,
        /// The architecture that it names.
        architecture: String,
        /// Why it is refused, and what to take instead.
        reason: String,
    },
    /// A model could not be had from the Hugging Face hub.
    Hub {
        /// The model, with its revision where one was asked for.
        id: String,
        /// What went wrong, and the cure.
        problem: HubProblem,
    },
    /// A tensor handed to the crate has a shape that cannot work.
    Shape {
        /// The tensor.
        what: String,
        /// What would have been accepted, such as `[B, 3, H, W]`.
        expected: String,
        /// What came.
        got: Vec<usize>,
    },
    /// A loss or gradient became infinite or no number: training stopped before it spoiled the weights.
    NonFinite {
        /// The loss of a task or the gradient of a parameter, by name.
        what: String,
        /// The step, counted from 1.
        step: usize,
        /// What to do about it.
        cure: String,
    },
    /// A sample of a data set could not be had.
    Dataset {
        /// The sample's index in the data set.
        index: usize,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A background thread could not start, or what it ran panicked.
    Worker(String),
    /// Candle refused an operation.
    Candle(candle_core::Error),
}

/// Why a model could not be had from the Hugging Face hub, and the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HubProblem {
    /// No such model, or a private one: the hub does not tell them apart.
    #[error(
        "no such model on {endpoint}, or a private one (check the name; a private one needs its owner's token, in HF_TOKEN)"
    )]
    NoSuchModel {
        /// The hub that was asked.
        endpoint: String,
    },
    /// The model has no such branch, tag or commit.
    #[error("no revision `{revision}` (name a branch, a tag or a whole commit)")]
    NoSuchRevision {
        /// What was asked for.
        revision: String,
    },
    /// The model has none of these files.
    #[error("no {files} at {commit} (look at the model's list of files on the hub)")]
    NoSuchFile {
        /// What was looked for.
        files: String,
        /// The commit.
        commit: String,
    },
    /// The model's owner wants its terms accepted first.
    #[error("gated: {said} (accept the terms on {page}, then give that account's token, in HF_TOKEN)")]
    Gated {
        /// What the hub said.
        said: String,
        /// Where the terms are accepted.
        page: String,
    },
    /// The token was refused, or may not read this model.
    #[error("not authorised: {said} (give a token that may read this model, in HF_TOKEN)")]
    Unauthorised {
        /// What the hub said.
        said: String,
    },
    /// The hub did not answer.
    #[error("no answer from {endpoint}: {cause}; {cache} (check the network, or name what the cache holds)")]
    NoNetwork {
        /// The hub that was asked.
        endpoint: String,
        /// What happened.
        cause: String,
        /// What the cache holds.
        cache: String,
    },
    /// The hub answers, and too slowly to wait for.
    #[error("{endpoint} sends less than {least} bytes a second: {kept} (try again, or lower `Hub::least_speed`)")]
    Slow {
        /// The hub that was asked.
        endpoint: String,
        /// The least speed.
        least: u64,
        /// What stays of the transfer.
        kept: String,
    },
    /// Another process downloads the same file, and does not get on.
    #[error(
        "{holder} holds {} and got on with nothing for {waited:.0?} (end it, or wait for it)", lock.display()
    )]
    Locked {
        /// The lock's file.
        lock: std::path::PathBuf,
        /// Who holds it, as it wrote there.
        holder: String,
        /// How long was waited.
        waited: std::time::Duration,
    },
    /// Offline mode is on, and the cache does not hold what was asked for.
    #[error("not asked for, since offline mode is on; {cache} (unset HF_HUB_OFFLINE, or name what the cache holds)")]
    Offline {
        /// What the cache holds.
        cache: String,
    },
    /// What came is not what the hub announced.
    #[error("{file} came damaged: {problem}; it was thrown away (try again)")]
    Damaged {
        /// The file.
        file: String,
        /// What differs.
        problem: String,
    },
    /// A file is larger than one of its kind can be.
    #[error("{file} has {size} bytes, more than the {most} that one of its kind can have (take another model)")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size on the hub.
        size: u64,
        /// The most that is taken.
        most: u64,
    },
    /// The hub answered with an error of its own.
    #[error("{endpoint} answered: {said} (try again later)")]
    Server {
        /// The hub that was asked.
        endpoint: String,
        /// What it said.
        said: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Printable(fmt::from_fn(|f| self.words(f))))?;
        match self {
            // Of this program's own lines, where RUST_BACKTRACE asked for them.
            Self::Candle(candle_core::Error::WithBacktrace { backtrace, .. }) => write!(f, "\n{backtrace}"),
            _ => Ok(()),
        }
    }
}

impl Error {
    /// The message, with other people's text in it as it came.
    fn words(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { field, expected, got, cure } => {
                write!(f, "`{field}`: expected {expected}, got {got} ({cure})")
            }
            Self::File { path, problem, cure } => write!(f, "{}: {problem} ({cure})", path.display()),
            Self::Io { path, action, source } => write!(f, "{}: cannot {action}: {source}", path.display()),
            Self::Checkpoint(message) => write!(f, "{message}"),
            Self::AdapterMismatch { path, differences } => {
                write!(f, "{}: this adapter does not fit: {}", path.display(), differences.join("; "))
            }
            Self::Backbone { adapter, wanted, source } => {
                write!(f, "{}: its backbone: {source}; it was made for {wanted}", adapter.display())
            }
            Self::NotSwin { path, architecture, reason } => {
                write!(f, "{}: {architecture} is no Swin that this crate builds: {reason}", path.display())
            }
            Self::Hub { id, problem } => write!(f, "{id}: {problem}"),
            Self::Shape { what, expected, got } => write!(f, "{what}: expected shape {expected}, got {got:?}"),
            Self::NonFinite { what, step, cure } => write!(f, "{what} is not finite at step {step} ({cure})"),
            Self::Dataset { index, source } => write!(f, "sample {index}: {source}"),
            Self::Worker(message) => write!(f, "background work failed: {message}"),
            Self::Candle(candle_core::Error::WithBacktrace { inner, .. }) => write!(f, "{inner}"),
            Self::Candle(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for Error {
    /// What the message does not say already: the cause in its field is part of it, and so this is the cause's own.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => source.source(),
            Self::Backbone { source, .. } => source.source(),
            Self::Dataset { source, .. } => source.source(),
            Self::Candle(source) => source.source(),
            _ => None,
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(source: candle_core::Error) -> Self {
        Self::Candle(source)
    }
}

/// A result whose error is the crate's own.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A configuration field that cannot work: which, what was expected, what came, the cure.
    pub fn config(
        field: impl Into<String>,
        expected: impl Into<String>,
        got: impl ToString,
        cure: impl Into<String>,
    ) -> Self {
        Self::Config { field: field.into(), expected: expected.into(), got: shortened(got), cure: cure.into() }
    }

    /// A file whose content is not what it should be: which, what is wrong, the cure.
    pub fn file(path: &Path, problem: impl ToString, cure: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), problem: shortened(problem), cure: cure.into() }
    }

    /// A sample of a data set of one's own that could not be had: its index, and an error of any type, or a sentence.
    ///
    /// ```
    /// let missing = std::io::Error::other("the archive ends here");
    /// assert_eq!(tadformer::Error::dataset(7, missing).to_string(), "sample 7: the archive ends here");
    /// ```
    pub fn dataset(index: usize, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Dataset { index, source: source.into() }
    }

    /// The error of a sample, which says its index once: one that names a sample already stays as it is.
    #[cfg(feature = "data")]
    pub(crate) fn of_sample(index: usize) -> impl Fn(Self) -> Self {
        move |error| match error {
            named @ Self::Dataset { .. } => named,
            error => Self::dataset(index, error),
        }
    }

    /// Turns an I/O error into one that names the file and what was being done.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}

/// A file can put a megabyte into its message; the cure comes after it and is to be seen.
fn shortened(text: impl ToString) -> String {
    const MOST: usize = 600;
    let text = text.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a program prints an error and its sources, as `anyhow` does, `No such file` stood there twice.
    #[test]
    fn an_error_and_its_sources_say_each_thing_once() {
        /// Says of itself no more than its own part, as most do.
        #[derive(Debug, thiserror::Error)]
        #[error("row 7")]
        struct Row(#[source] std::num::ParseIntError);
        let cause = "x".parse::<u8>().unwrap_err();
        let io = || Error::io(Path::new("a.png"), "read")(std::io::Error::other("gone"));
        let backbone = |source| Error::Backbone { adapter: "a".into(), wanted: "b".into(), source: Box::new(source) };
        for (error, words) in [
            (io(), vec!["a.png", "gone"]),
            (Error::dataset(3, io()), vec!["sample 3", "a.png", "gone"]),
            (backbone(io()), vec!["a.png", "gone"]),
            (Error::dataset(3, Row(cause.clone())), vec!["row 7", "invalid digit"]),
            (Error::io(Path::new("a"), "read")(std::io::Error::other(Row(cause))), vec!["row 7", "invalid digit"]),
            (Error::Candle(candle_core::Error::Msg("no kernel".into()).bt()), vec!["no kernel"]),
        ] {
            let mut printed = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                printed += &format!(": {cause}");
                source = cause.source();
            }
            for word in words {
                assert_eq!(printed.matches(word).count(), 1, "{word} in {printed}");
            }
        }
    }

    #[test]
    fn a_sample_that_cannot_be_had_keeps_its_cause() {
        let own: std::num::ParseIntError = "x".parse::<u8>().unwrap_err();
        let error = Error::dataset(3, own.clone());
        assert_eq!(error.to_string(), format!("sample 3: {own}"));
        assert!(matches!(&error, Error::Dataset { source, .. } if source.is::<std::num::ParseIntError>()));
        assert_eq!(Error::dataset(4, "no such row").to_string(), "sample 4: no such row");
    }

    #[test]
    fn a_megabyte_from_a_file_does_not_hide_the_cure() {
        let long = "é".repeat(1 << 20);
        for error in [Error::file(Path::new("a"), &long, "cure"), Error::config("field", "less", &long, "cure")] {
            let message = error.to_string();
            assert!(message.len() < 1300 && message.contains("é...") && message.ends_with("(cure)"));
        }
    }

    #[test]
    fn no_text_of_another_reaches_a_terminal_as_it_came() {
        let evil = || "x\u{1b}[2J\n\u{202e}y".to_owned();
        let (path, candle) = (PathBuf::from(evil()), candle_core::Error::Msg(evil()));
        for error in [
            Error::config(evil(), evil(), evil(), evil()),
            Error::file(&path, evil(), evil()),
            Error::io(&path, "read")(std::io::Error::other(evil())),
            Error::Checkpoint(evil()),
            Error::AdapterMismatch { path: path.clone(), differences: vec![evil(), evil()] },
            Error::Backbone { adapter: path.clone(), wanted: evil(), source: Box::new(Error::Checkpoint(evil())) },
            Error::NotSwin { path, architecture: evil(), reason: evil() },
            Error::Hub { id: evil(), problem: HubProblem::NoSuchRevision { revision: evil() } },
            Error::Shape { what: evil(), expected: evil(), got: vec![1] },
            Error::NonFinite { what: evil(), step: 1, cure: evil() },
            Error::dataset(1, evil()),
            Error::Worker(evil()),
            Error::Candle(candle),
        ] {
            let message = error.to_string();
            assert!(message.contains(r"x\u{1b}[2J\n\u{202e}y"), "{message:?}");
            assert!(!message.contains(['\u{1b}', '\n', '\u{202e}']), "{message:?}");
        }
    }
}
