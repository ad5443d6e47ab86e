//! What a pickle is made of.

use std::rc::Rc;

/// Where a value lives in its [`Pickle`].
pub(crate) type Id = usize;

/// What a pickle can hold, as far as weights need it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, by module and name; never looked up.
    Global(Rc<str>, Rc<str>),
    /// What a call would have given; never called.
    Call {
        callable: Id,
        args: Id,
    },
    /// A reference to something outside the pickle: a tensor's storage.
    Persistent(Id),
    /// Anything else.
    Opaque,
}

/// A pickle's values and its result.
#[derive(Debug)]
pub(crate) struct Pickle {
    pub(super) values: Vec<Value>,
    pub(super) root: Id,
}

impl Pickle {
    /// Larger pickles are refused: a large model's is about one MB, since the tensors lie outside.
    pub(crate) const MAX_BYTES: u64 = 16 << 20;

    /// More values than this are refused, so that no pickle takes more than some hundred MB.
    pub(crate) const MAX_VALUES: usize = 2 << 20;

    pub(crate) fn root(&self) -> Id {
        self.root
    }

    pub(crate) fn get(&self, id: Id) -> &Value {
        self.values.get(id).unwrap_or(&Value::Opaque)
    }
}
