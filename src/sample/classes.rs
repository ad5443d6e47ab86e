//! What the classes of a task are called, and which colours they have.

/// The classes of a task: names by index, and colours where they have some of their own.
///
/// ```
/// use tadformer::sample::Classes;
/// let classes = Classes::new(["background", "cat"]);
/// assert_eq!((classes.name(1), classes.name(7).as_ref()), ("cat".into(), "class 7"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// By index.
    pub names: Vec<String>,
    /// Red, green and blue by index; empty where pictures are to choose.
    pub colours: Vec<[u8; 3]>,
}

impl Classes {
    /// Classes of these names, without colours of their own.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), colours: Vec::new() }
    }

    /// What class `index` is called: `class 7` where it has no name.
    pub fn name(&self, index: usize) -> std::borrow::Cow<'_, str> {
        self.names.get(index).map_or_else(|| format!("class {index}").into(), |name| name.as_str().into())
    }
}
