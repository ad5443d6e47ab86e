//! `dataset.toml`: what a folder holds, as people write it.

use super::listing::IMAGES;
use super::member::Form;
use super::{Colour, Split};
use crate::data::arrays::ArrayForm;
use crate::data::{Dataset, LabelForm};
use crate::files::{open_regular, write_atomically};
use crate::sample::Classes;
use crate::{Error, Result, Task, TaskKind, TaskSet};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// What describes a folder lies in it under this name.
pub(super) const FILE: &str = "dataset.toml";
/// Lists of half a million names. What stands in a longer file would take gigabytes while it is read.
const MOST_BYTES: u64 = 8 << 20;
/// Characters of a class's or split's name.
const MOST_NAME: usize = 100;
/// More than anybody divides a set into.
const MOST_SPLITS: usize = 100;

/// What a [`Folder`](super::Folder) holds: its tasks and its splits, read from `dataset.toml`, inferred, or made.
///
/// ```
/// use tadformer::data::FolderDescription;
/// let description = FolderDescription::parse(
///     r##"
///     [[tasks]]
///     name = "rooms"        # also the folder of the labels
///     kind = "semseg"
///     names = ["other", "kitchen", "bath"]
///     colours = ["#000000", "#804020", "#208040"]
///     ignore = 250          # as 255 always is
///
///     [[tasks]]
///     name = "depth"
///     kind = "depth"
///     scale = 0.0002        # metres that a stored 1 stands for
///
///     [splits]
///     train = 0.9
///     val = 0.1
///     test = ["a-photo", "another"]
///     "##,
/// )?;
/// assert_eq!(description.task_set()?.to_string(), "rooms:semseg=3,depth=1");
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderDescription {
    /// In the order of a model's outputs.
    pub tasks: Vec<TaskDescription>,
    /// By name; without any, there is only the whole.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub splits: BTreeMap<String, Split>,
}

/// One task of a [`FolderDescription`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskDescription {
    /// Of the task, and of the folder of its labels.
    pub name: String,
    /// What it predicts.
    pub kind: TaskKind,
    /// How many classes there are; as many as names, where there are names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// Of the classes, by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Of the classes, by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub colours: Vec<Colour>,
    /// Of classes, a stored number that is ignored, as 255 always is; of a mask, the grey that is, instead of 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<u8>,
    /// The metres that a stored depth of 1 stands for: a thousandth for PNG and 1 for npy, where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
}

impl FolderDescription {
    /// Of a `dataset.toml`'s text.
    ///
    /// # Errors
    /// No TOML, a field that there is not, a value that cannot work: each by name.
    pub fn parse(text: &str) -> Result<Self> {
        let cure = "the documentation of FolderDescription shows one";
        let read: Self =
            toml::from_str(text).map_err(|error| Error::config(FILE, "a description", placed(&error, text), cure))?;
        read.checked()
    }

    /// Reads a folder's `dataset.toml`; none where it has none.
    ///
    /// # Errors
    /// As [`FolderDescription::parse`]; a file that cannot be read, or is longer than 8 MiB.
    pub fn read(folder: impl AsRef<Path>) -> Result<Option<Self>> {
        let path = folder.as_ref().join(FILE);
        if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        open_regular(&path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io(&path, "read"))?;
        if bytes.len() as u64 > MOST_BYTES {
            let problem = format!("more than {} MiB", MOST_BYTES >> 20);
            return Err(Error::file(&path, problem, "give shares instead of lists of names"));
        }
        let text = String::from_utf8(bytes).map_err(|_| Error::file(&path, "no text", "write it in UTF-8"))?;
        Self::parse(&text)
            .map(Some)
            .map_err(|error| Error::file(&path, error, "mend it, or remove it to have it inferred"))
    }

    /// A folder's `dataset.toml`, or what [`FolderDescription::infer`] finds where it has none.
    ///
    /// # Errors
    /// As [`FolderDescription::read`] and there.
    pub fn of_folder(folder: impl AsRef<Path>) -> Result<Self> {
        match Self::read(folder.as_ref())? {
            Some(description) => Ok(description),
            None => Self::infer(folder),
        }
    }

    /// With the tasks of these names alone, in this order.
    ///
    /// # Errors
    /// As [`TaskSet::only`].
    pub fn only(&self, names: &[&str]) -> Result<Self> {
        let chosen = self.task_set()?.only(names)?;
        let described = |task: &Task| self.tasks.iter().find(|described| described.name == task.name()).cloned();
        Ok(Self { tasks: chosen.iter().filter_map(described).collect(), splits: self.splits.clone() })
    }

    /// What describes a data set's tasks and classes; without splits.
    pub fn of_dataset(dataset: &dyn Dataset) -> Self {
        let describe = |task: &Task| {
            let classes = dataset.classes(task.name()).cloned().unwrap_or_default();
            let count = task.kind().is_classes().then_some(task.outputs());
            // A list that is longer or shorter would be refused when it is read.
            let names = if Some(classes.names.len()) == count { classes.names } else { Vec::new() };
            let colours = if Some(classes.colours.len()) == count { classes.colours } else { Vec::new() };
            let colours = colours.into_iter().map(Colour).collect();
            TaskDescription { classes: count, names, colours, ..TaskDescription::new(task.name(), task.kind()) }
        };
        Self { tasks: dataset.tasks().iter().map(describe).collect(), splits: BTreeMap::new() }
    }

    /// As the text of a `dataset.toml`.
    ///
    /// # Errors
    /// A description that [`FolderDescription::parse`] would refuse.
    pub fn to_toml(&self) -> Result<String> {
        let text = toml::to_string(&self.clone().checked()?)
            .map_err(|error| Error::config(FILE, "what TOML can hold", error, "report this as a bug"))?;
        Ok(format!("# What this folder holds: see tadformer::data::Folder.\n{text}"))
    }

    /// Writes it as a folder's `dataset.toml`.
    ///
    /// # Errors
    /// As [`FolderDescription::to_toml`]; a folder that cannot be written to.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let text = self.to_toml()?;
        write_atomically(&folder.as_ref().join(FILE), |file| file.write_all(text.as_bytes()))
    }

    /// The tasks, checked.
    ///
    /// # Errors
    /// No task, one that cannot work, a name given twice.
    pub fn task_set(&self) -> Result<TaskSet> {
        TaskSet::new(self.tasks.iter().map(TaskDescription::task).collect::<Result<_>>()?)
    }

    pub(super) fn checked(self) -> Result<Self> {
        self.task_set()?;
        self.tasks.iter().try_for_each(TaskDescription::check)?;
        if self.splits.len() > MOST_SPLITS {
            let cure = "leave some out";
            return Err(Error::config("splits", format!("at most {MOST_SPLITS}"), self.splits.len(), cure));
        }
        let mut total = 0.0;
        for (name, split) in &self.splits {
            check_name("the name of a split", name)?;
            if let Split::Share(share) = split {
                if !(0.0..=1.0).contains(share) {
                    return Err(Error::config(format!("splits.{name}"), "0 to 1", share, "0.8 is four fifths"));
                }
                total += share;
            }
        }
        if total > 1.0 + 1e-9 {
            return Err(Error::config("splits", "shares of at most 1 in all", total, "0.8 and 0.2, for one"));
        }
        Ok(self)
    }
}

impl TaskDescription {
    /// Of this name and kind, and nothing else said.
    pub fn new(name: &str, kind: TaskKind) -> Self {
        Self { name: name.to_owned(), kind, classes: None, names: vec![], colours: vec![], ignore: None, scale: None }
    }

    /// The task with its number of outputs.
    ///
    /// # Errors
    /// As [`Task::named`]; a name that is the images'; numbers of classes that contradict each other, or none.
    pub fn task(&self) -> Result<Task> {
        if self.name == IMAGES {
            return Err(self.wrong("name", "another name than the images' folder", IMAGES, "rename the task"));
        }
        Task::named(&self.name, self.kind, self.outputs()?)
    }

    /// Names and colours of the classes.
    pub fn class_list(&self) -> Classes {
        Classes { names: self.names.clone(), colours: self.colours.iter().map(|colour| colour.0).collect() }
    }

    /// How its files store labels: an array's depths are metres where nothing else is said.
    pub(super) fn form(&self) -> Form {
        let plain = LabelForm::default();
        Form {
            png: LabelForm { ignore: self.ignore, metres: self.scale.unwrap_or(plain.metres), ..plain },
            array: ArrayForm { ignore: self.ignore, metres: self.scale.unwrap_or(1.0) },
        }
    }

    fn outputs(&self) -> Result<usize> {
        match (self.kind, self.classes) {
            (TaskKind::Normals, _) => Ok(3),
            (kind, _) if !kind.is_classes() => Ok(1),
            (_, Some(classes)) => Ok(classes),
            (_, None) if !self.names.is_empty() => Ok(self.names.len()),
            _ => Err(self.wrong("classes", "a number of classes, or their names", "neither", "such as classes = 21")),
        }
    }

    fn check(&self) -> Result<()> {
        let outputs = self.outputs()?;
        let given = [
            ("classes", self.classes.is_some(), self.kind.is_classes()),
            ("names", !self.names.is_empty(), self.kind.is_classes()),
            ("colours", !self.colours.is_empty(), self.kind.is_classes()),
            ("ignore", self.ignore.is_some(), !matches!(self.kind, TaskKind::Normals | TaskKind::Depth)),
            ("scale", self.scale.is_some(), self.kind == TaskKind::Depth),
        ];
        if let Some((field, ..)) = given.iter().find(|(_, given, has)| *given && !has) {
            let expected = format!("nothing, since a task of kind {} has none", self.kind.name());
            return Err(self.wrong(field, &expected, "a value", "remove it"));
        }
        for (field, count) in [("names", self.names.len()), ("colours", self.colours.len())] {
            if count != 0 && count != outputs {
                let expected = format!("{outputs}, one for each class");
                return Err(self.wrong(field, &expected, count, "leave it out, or name each"));
            }
        }
        self.names.iter().try_for_each(|name| check_name(&format!("{}: the name of a class", self.name), name))?;
        match (self.kind, self.ignore) {
            (TaskKind::Sal | TaskKind::Edge, Some(grey @ (0 | 255))) => {
                Err(self.wrong("ignore", "a grey between 0 and 255, which say no and yes", grey, "such as 128"))
            }
            _ => self.check_scale(),
        }
    }

    fn check_scale(&self) -> Result<()> {
        match self.scale {
            Some(scale) if !(1e-6..=1e3).contains(&scale) => {
                let cure = "it is the metres that a stored 1 stands for: 0.001 where millimetres are stored";
                Err(self.wrong("scale", "0.000001 to 1000", scale, cure))
            }
            _ => Ok(()),
        }
    }

    fn wrong(&self, field: &str, expected: &str, got: impl ToString, cure: &str) -> Error {
        Error::config(format!("{}: {field}", self.name), expected, got, cure)
    }
}

/// What is wrong, and where, without the line itself: it may be as long as the file.
fn placed(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let (line, column) =
        (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    format!("line {line}, column {column}: {:.300}", error.message())
}

fn check_name(what: &str, name: &str) -> Result<()> {
    let count = name.chars().count();
    if (1..=MOST_NAME).contains(&count) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::config(
        what,
        format!("1 to {MOST_NAME} characters, none of them a control character"),
        format!("{name:.MOST_NAME$}"),
        "shorten it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_was() -> Result<()> {
        let text = r##"
            [[tasks]]
            name = "parts"
            kind = "human_parts"
            classes = 2
            names = ["no \"one\"", "Zürich"]
            colours = ["#000000", "#ff8000"]
            ignore = 9
            [[tasks]]
            name = "depth"
            kind = "depth"
            scale = 0.0002
            [splits]
            train = 0.25
            val = ["a", "b c"]
        "##;
        let description = FolderDescription::parse(text)?;
        assert_eq!(description.task_set()?.to_string(), "parts:human_parts=2,depth=1");
        assert_eq!(description.tasks[0].class_list().colour(1), [255, 128, 0]);
        assert_eq!(FolderDescription::parse(&description.to_toml()?)?, description);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(FolderDescription::read(folder.path())?, None);
        description.save(folder.path())?;
        assert_eq!(FolderDescription::read(folder.path())?, Some(description));
        Ok(())
    }

    #[test]
    fn each_thing_that_cannot_work_is_named() {
        let task = |fields: &str| format!("[[tasks]]\nname = \"a\"\n{fields}\n");
        for (text, words) in [
            (String::new(), "missing field `tasks`"),
            ("tasks = []".into(), "at least one"),
            ("tasks = 3 $".into(), "dataset.toml"),
            (task("kind = \"colour\""), "unknown variant `colour`"),
            (task("kind = \"sal\"\ncolour = 1"), "unknown field `colour`"),
            (task("kind = \"semseg\""), "a: classes`: expected a number of classes, or their names"),
            (task("kind = \"semseg\"\nclasses = 1"), "2 to 255 classes"),
            (
                task("kind = \"semseg\"\nclasses = 3\nnames = [\"x\", \"y\"]"),
                "a: names`: expected 3, one for each class, got 2",
            ),
            (task("kind = \"semseg\"\nclasses = 3\ncolours = [\"red\", \"#000000\", \"#000000\"]"), "six hexadecimal"),
            (task("kind = \"semseg\"\nnames = [\"x\", \"\"]"), "a: the name of a class"),
            (task("kind = \"semseg\"\nclasses = 3\nignore = 256"), "256"),
            (task("kind = \"sal\"\nignore = 255"), "a grey between 0 and 255"),
            (task("kind = \"sal\"\nclasses = 2"), "a: classes`: expected nothing"),
            (task("kind = \"normals\"\nignore = 3"), "a: ignore`: expected nothing"),
            (task("kind = \"semseg\"\nclasses = 3\nscale = 1.0"), "a: scale`: expected nothing"),
            (task("kind = \"depth\"\nscale = 0.0"), "a: scale`: expected 0.000001"),
            (task("kind = \"depth\"\nscale = nan"), "a: scale`: expected 0.000001"),
            (task("kind = \"sal\"") + &task("kind = \"sal\""), "a twice"),
            (task("kind = \"sal\"") + "[splits]\ntrain = 0.8\nval = 0.3", "at most 1 in all"),
            (task("kind = \"sal\"") + "[splits]\ntrain = -0.5", "splits.train`: expected 0 to 1"),
            (task("kind = \"sal\"") + "[splits]\ntrain = nan", "splits.train`: expected 0 to 1"),
            (task("kind = \"sal\"") + "[splits]\n\"\" = 0.5", "the name of a split"),
            ("[[tasks]]\nname = \"images\"\nkind = \"sal\"".into(), "another name than the images' folder"),
            ("[[tasks]]\nname = \"../a\"\nkind = \"sal\"".into(), "letters"),
        ] {
            let message = FolderDescription::parse(&text).unwrap_err().to_string();
            assert!(message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn a_file_that_is_no_description_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let message = || FolderDescription::read(folder.path()).unwrap_err().to_string();
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert!(message().contains("dataset.toml: no text"), "{}", message());
        std::fs::write(&path, "[").unwrap();
        assert!(message().contains("dataset.toml: `dataset.toml`: expected a description"), "{}", message());
        std::fs::File::create(&path).unwrap().set_len(MOST_BYTES + 1).unwrap();
        assert!(message().contains("more than 8 MiB"), "{}", message());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(message().contains("a folder, where a file is expected"), "{}", message());
    }
}
