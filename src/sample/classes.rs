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

    /// The colour of class `index`: its own, or PASCAL VOC's where it has none.
    pub fn colour(&self, index: u8) -> [u8; 3] {
        self.colours.get(usize::from(index)).copied().unwrap_or_else(|| class_colour(index))
    }
}

/// The colour of a class, PASCAL VOC's: black for 0, and for any other the bits of its index spread over the channels.
pub fn class_colour(class: u8) -> [u8; 3] {
    let mut colour = [0u8; 3];
    for (i, shift) in (0..8).zip((0..8).rev()) {
        for (c, channel) in colour.iter_mut().enumerate() {
            let bit = class.checked_shr(3 * i + c as u32).unwrap_or(0) & 1;
            *channel |= bit << shift;
        }
    }
    colour
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_pascals_colours() {
        let want = [
            (0, [0, 0, 0]),
            (1, [128, 0, 0]),
            (2, [0, 128, 0]),
            (7, [128, 128, 128]),
            (15, [192, 128, 128]),
            (20, [0, 64, 128]),
        ];
        for (class, colour) in want {
            assert_eq!(class_colour(class), colour);
        }
    }

    #[test]
    fn a_class_has_its_own_colour_where_there_is_one() {
        let classes = Classes { colours: vec![[1, 2, 3]], ..Classes::new(["floor", "wall"]) };
        assert_eq!([0, 1].map(|index| classes.colour(index)), [[1, 2, 3], [128, 0, 0]]);
    }
}
