//! A bounded reader of pickles that executes nothing.
//!
//! candle's own reader clones memoised values deeply, panics on some malformed arguments and stops at objects it does not know,
//! which real training checkpoints hold; so every `.pth` and `.bin` goes through this one.
//!
//! Values live in one arena and refer to each other by index: sharing costs nothing, cycles do no harm, and nothing recurses.

use std::collections::HashMap;
use std::rc::Rc;

/// Where a value lives in its [`Pickle`].
pub(super) type Id = usize;

/// What a pickle can hold, as far as weights need it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
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
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// Larger pickles are refused: a large model's is about one MB, since the tensors lie outside.
    pub(super) const MAX_BYTES: u64 = 16 << 20;

    /// More values than this are refused, so that no pickle takes more than some hundred MB.
    pub(super) const MAX_VALUES: usize = 2 << 20;

    /// Reads a pickle of protocol 0 to 5.
    ///
    /// Every opcode takes at least one byte, makes at most one value and copies none, so memory is bounded by the input's length.
    ///
    /// # Errors
    /// A pickle that ends early, takes what is not on its stack, or holds more than [`Self::MAX_VALUES`].
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine =
            Machine { input: bytes, at: 0, values: vec![], stack: vec![], marks: vec![], memo: HashMap::new() };
        let root = machine.run()?;
        Ok(Self { values: machine.values, root })
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        self.values.get(id).unwrap_or(&Value::Opaque)
    }
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

type Step<T> = Result<T, String>;

impl Machine<'_> {
    fn run(&mut self) -> Step<Id> {
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Step<()> {
        match opcode {
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop), // FRAME
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.since_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'N' | b'C' | b'B' | 0x8e | 0x96 | 0x97 | 0x98 | 0x8f | 0x91 | 0x90 => self.opaque(opcode),
            b'I' | b'J' | b'K' | b'M' | b'L' | b'F' | b'G' | 0x8a | 0x8b | 0x88 | 0x89 => self.number(opcode),
            b'S' | b'V' | b'T' | b'U' | b'X' | 0x8c | 0x8d => self.text(opcode),
            b')' | b't' | 0x85..=0x87 => self.tuple(opcode),
            b']' | b'l' | b'a' | b'e' => self.list(opcode),
            b'}' | b'd' | b's' | b'u' => self.dict(opcode),
            b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'b' | b'o' | b'i' | b'P' | b'Q' | 0x82..=0x84 => self.object(opcode),
            b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.memo(opcode),
            other => Err(format!("unknown opcode {other:#04x} at byte {}", self.at - 1)),
        }
    }

    /// Values that weights do not need: their bytes are passed over.
    fn opaque(&mut self, opcode: u8) -> Step<()> {
        match opcode {
            b'C' => {
                let n = self.unsigned(1)?;
                self.take(n)?;
            }
            b'B' => {
                let n = self.unsigned(4)?;
                self.take(n)?;
            }
            0x8e | 0x96 => {
                let n = self.unsigned(8)?;
                self.take(n)?;
            }
            0x98 => return Ok(()), // READONLY_BUFFER leaves its argument
            0x90 => {
                self.since_mark()?; // ADDITEMS leaves its set
                return Ok(());
            }
            0x91 => self.since_mark().map(drop)?, // FROZENSET
            _ => {}
        }
        self.push(Value::Opaque)
    }

    fn number(&mut self, opcode: u8) -> Step<()> {
        let value = match opcode {
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'F' => self.line()?.parse().map_or(Value::Opaque, Value::Float),
            b'G' => Value::Float(self.take(8)?.try_into().map_or(f64::NAN, f64::from_be_bytes)),
            b'K' => Value::Int(self.unsigned(1)? as i64),
            b'M' => Value::Int(self.unsigned(2)? as i64),
            b'J' => Value::Int(i64::from(self.unsigned(4)? as u32 as i32)),
            b'I' | b'L' => match self.line()?.trim_end_matches('L') {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                digits => digits.parse().map_or(Value::Opaque, Value::Int),
            },
            _ => {
                let n = self.unsigned(if opcode == 0x8a { 1 } else { 4 })?;
                signed(self.take(n)?)
            }
        };
        self.push(value)
    }

    fn text(&mut self, opcode: u8) -> Step<()> {
        let text = match opcode {
            b'S' => self.line()?.trim_matches(['\'', '"']).to_owned(),
            b'V' => self.line()?,
            _ => {
                let width = match opcode {
                    b'U' | 0x8c => 1,
                    0x8d => 8,
                    _ => 4,
                };
                let n = self.unsigned(width)?;
                String::from_utf8_lossy(self.take(n)?).into_owned()
            }
        };
        self.push(Value::Text(text.into()))
    }

    fn tuple(&mut self, opcode: u8) -> Step<()> {
        let items = match opcode {
            b')' => vec![],
            b't' => self.since_mark()?,
            _ => {
                let n = usize::from(opcode - 0x84);
                let open = self.stack.len().saturating_sub(self.floor());
                let start = self.stack.len() - Some(n).filter(|n| *n <= open).ok_or("a tuple of values not there")?;
                self.stack.split_off(start)
            }
        };
        self.push(Value::Tuple(items))
    }

    fn list(&mut self, opcode: u8) -> Step<()> {
        let items = match opcode {
            b']' => return self.push(Value::List(vec![])),
            b'l' => {
                let items = self.since_mark()?;
                return self.push(Value::List(items));
            }
            b'a' => vec![self.pop()?],
            _ => self.since_mark()?,
        };
        // What is no list is an object that was not made; its items go with it.
        let top = self.top()?;
        if let Value::List(list) = &mut self.values[top] {
            list.extend(items);
        }
        Ok(())
    }

    fn dict(&mut self, opcode: u8) -> Step<()> {
        let items = match opcode {
            b'}' => return self.push(Value::Dict(vec![])),
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.since_mark()?,
        };
        let pairs = items.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        if opcode == b'd' {
            let pairs = pairs.collect();
            return self.push(Value::Dict(pairs));
        }
        let top = self.top()?;
        if let Value::Dict(dict) = &mut self.values[top] {
            dict.extend(pairs);
        }
        Ok(())
    }

    /// Classes, calls and references: noted, never made.
    fn object(&mut self, opcode: u8) -> Step<()> {
        let value = match opcode {
            b'c' => Value::Global(self.line()?.into(), self.line()?.into()),
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.values[module], &self.values[name]) {
                    (Value::Text(module), Value::Text(name)) => Value::Global(module.clone(), name.clone()),
                    _ => Value::Opaque,
                }
            }
            b'R' | 0x81 => {
                let args = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, args)
            }
            0x92 => {
                self.pop()?;
                self.pop()?;
                self.pop()?;
                Value::Opaque
            }
            b'b' => return self.pop().map(drop), // BUILD: the state of an object that was not made
            b'o' | b'i' => {
                if opcode == b'i' {
                    self.line()?;
                    self.line()?;
                }
                self.since_mark()?;
                Value::Opaque
            }
            b'P' => {
                self.line()?;
                Value::Opaque
            }
            b'Q' => Value::Persistent(self.pop()?),
            _ => {
                self.take([1, 2, 4][usize::from(opcode - 0x82)])?; // EXT1, EXT2, EXT4
                Value::Opaque
            }
        };
        self.push(value)
    }

    /// Ordered dictionaries and the nodes of a training's configuration are the classes whose making does not matter: both are
    /// dictionaries.
    fn call(&self, callable: Id, args: Id) -> Value {
        let is_dictionary = match &self.values[callable] {
            Value::Global(module, name) => {
                [("collections", "OrderedDict"), ("yacs.config", "CfgNode")].contains(&(&**module, &**name))
            }
            _ => false,
        };
        if is_dictionary { Value::Dict(vec![]) } else { Value::Call { callable, args } }
    }

    fn memo(&mut self, opcode: u8) -> Step<()> {
        let key = match opcode {
            0x94 => self.memo.len() as u64,
            b'p' | b'g' => self.line()?.parse().map_err(|_| "a memo key that is no number")?,
            b'q' | b'h' => self.unsigned(1)? as u64,
            _ => self.unsigned(4)? as u64,
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let id = *self.memo.get(&key).ok_or_else(|| format!("memo {key} is not set"))?;
            self.stack.push(id);
        } else {
            let top = self.top()?;
            if self.memo.len() >= Pickle::MAX_VALUES {
                return Err(format!("more than {} values", Pickle::MAX_VALUES));
            }
            self.memo.insert(key, top);
        }
        Ok(())
    }

    fn push(&mut self, value: Value) -> Step<()> {
        if self.values.len() >= Pickle::MAX_VALUES {
            return Err(format!("more than {} values", Pickle::MAX_VALUES));
        }
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    /// The stack's height at the innermost open mark: nothing below it is taken until the mark is.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Step<Id> {
        self.stack.get(self.floor()..).and_then(|open| open.last()).copied().ok_or_else(|| "an empty stack".to_owned())
    }

    fn pop(&mut self) -> Step<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn since_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, n: usize) -> Step<&[u8]> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.input.len());
        let end = end.ok_or_else(|| format!("the pickle ends within a value at byte {}", self.at))?;
        let taken = &self.input[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// Up to the end of the line.
    fn line(&mut self) -> Step<String> {
        let rest = &self.input[self.at..];
        let n = rest.iter().position(|byte| *byte == b'\n').ok_or("the pickle ends within a line")?;
        let line = String::from_utf8_lossy(&rest[..n]).into_owned();
        self.at += n + 1;
        Ok(line)
    }

    /// A little-endian number of up to eight bytes.
    fn unsigned(&mut self, width: usize) -> Step<usize> {
        let value = self.take(width)?.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).map_err(|_| "a length beyond this machine".to_owned())
    }
}

/// A little-endian two's complement number; one of more than eight bytes is no size or offset.
fn signed(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [fill; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root(bytes: &[u8]) -> Value {
        let pickle = Pickle::read(bytes).unwrap();
        pickle.get(pickle.root()).clone()
    }

    /// `{'a': [1, -2, True, 300], 'b': (2**40, 'x')}` at protocol 2, as Python writes it.
    const SMALL: &[u8] = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xff\x88M,\x01eX\x01\x00\x00\x00bq\x03\x8a\x06\x00\x00\x00\x00\x00\x01X\x01\x00\x00\x00xq\x04\x86q\x05u.";

    #[test]
    fn reads_what_python_writes() {
        let pickle = Pickle::read(SMALL).unwrap();
        let Value::Dict(pairs) = pickle.get(pickle.root()) else { panic!() };
        let Value::List(list) = pickle.get(pairs[0].1) else { panic!() };
        let list: Vec<&Value> = list.iter().map(|id| pickle.get(*id)).collect();
        assert_eq!(list, [&Value::Int(1), &Value::Int(-2), &Value::Bool(true), &Value::Int(300)]);
        let Value::Tuple(tuple) = pickle.get(pairs[1].1) else { panic!() };
        assert_eq!(pickle.get(tuple[0]), &Value::Int(1 << 40));
        assert_eq!(pickle.get(tuple[1]), &Value::Text("x".into()));
    }

    #[test]
    fn older_and_newer_protocols() {
        assert_eq!(root(b"I01\n."), Value::Bool(true));
        assert_eq!(root(b"L-7L\n."), Value::Int(-7));
        assert_eq!(root(b"S'abc'\np0\n."), Value::Text("abc".into()));
        assert_eq!(root(b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x02hi\x94."), Value::Text("hi".into()));
        assert_eq!(root(b"\x80\x04\x8c\x02os\x8c\x06system\x93."), Value::Global("os".into(), "system".into()));
        assert_eq!(root(b"\x8fq\x00(K\x01\x90."), Value::Opaque);
    }

    #[test]
    fn a_reduce_of_os_system_is_noted_and_not_run() {
        let marker = tempfile::tempdir().unwrap();
        let path = marker.path().join("ran");
        let command = format!("touch {}", path.display());
        let mut bytes = b"cos\nsystem\n(S'".to_vec();
        bytes.extend(command.as_bytes());
        bytes.extend(b"'\ntR.");
        assert!(matches!(root(&bytes), Value::Call { .. }));
        assert!(!path.exists());
    }

    #[test]
    fn deep_nesting_and_shared_memos_stay_cheap() {
        let mut deep = vec![b'('; 1];
        deep.extend([b']'; 200_000]);
        deep.extend([b'a'; 199_999]);
        deep.extend(b"l.");
        assert!(Pickle::read(&deep).is_ok());
        // Each list holds the one before twice: 2^40 leaves if copied, a hundred and twenty values if shared.
        let mut laughs = b"]q\x00".to_vec();
        for _ in 0..40 {
            laughs.extend(b"](h\x00h\x00eq\x00");
        }
        laughs.push(b'.');
        assert!(Pickle::read(&laughs).unwrap().values.len() < 200);
    }

    #[test]
    fn every_truncation_is_an_error() {
        for end in 0..SMALL.len() {
            assert!(Pickle::read(&SMALL[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn each_malformed_pickle_is_refused() {
        for (bytes, words) in [
            (&b"."[..], "empty stack"),
            (b"h\x07.", "memo 7"),
            (b"t.", "no mark"),
            (b"\x85.", "not there"),
            (b"\xff.", "unknown opcode 0xff"),
            (b"X\xff\xff\xff\xffa.", "ends within"),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "ends within"),
            (b"(0.", "empty stack"),
            (b"Sabc", "within a line"),
        ] {
            let message = Pickle::read(bytes).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_tuple_does_not_reach_below_an_open_mark() {
        for bytes in [b"NN(\x86t.".as_slice(), b"NNN(\x87l.", b"NN(\x86e.", b"NN(\x86u."] {
            assert!(Pickle::read(bytes).is_err());
        }
    }

    #[test]
    fn classes_named_by_shared_text_share_it() {
        let mut bytes = b"(\x8d\x00\x00\x10\x00\x00\x00\x00\x00".to_vec();
        bytes.extend(std::iter::repeat_n(b'a', 1 << 20));
        bytes.extend(b"q\x000");
        for _ in 0..10 {
            bytes.extend(b"h\x00h\x00\x93");
        }
        bytes.extend(b"t.");
        let pickle = Pickle::read(&bytes).unwrap();
        let Value::Tuple(globals) = pickle.get(pickle.root()) else { panic!() };
        let places: std::collections::HashSet<_> = globals
            .iter()
            .flat_map(|id| match pickle.get(*id) {
                Value::Global(module, name) => [module.as_ptr(), name.as_ptr()],
                _ => panic!(),
            })
            .collect();
        assert_eq!((globals.len(), places.len()), (10, 1), "each of the megabyte's copies would be kept");
    }

    #[test]
    fn more_values_than_a_checkpoint_has_are_refused() {
        for opcode in [b'N', b']', 0x94] {
            let mut bytes = vec![b'N'];
            bytes.resize(Pickle::MAX_VALUES + 2, opcode);
            let message = Pickle::read(&bytes).unwrap_err();
            assert!(message.contains("values"), "{message}");
        }
    }

    /// Opcodes that leave something to go wrong, where random bytes mostly stop at the first.
    fn opcodes() -> impl Strategy<Value = Vec<u8>> {
        let one = prop::sample::select(b"(012NK\x88)t]lae}dsuRbQq\x85\x86\x87\x81\x8f\x90\x91\x92\x93\x94h".to_vec());
        prop::collection::vec(one, 0..60).prop_map(|codes| {
            let with_argument = |code| if b"Kqh".contains(&code) { vec![code, 0] } else { vec![code] };
            codes.into_iter().flat_map(with_argument).chain([b'.']).collect()
        })
    }

    proptest! {
        #[test]
        fn no_run_of_opcodes_makes_it_panic(bytes in opcodes()) {
            let _ = Pickle::read(&bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pickle::read(&bytes);
        }

        #[test]
        fn no_changed_byte_makes_it_panic(at in 0..SMALL.len(), byte in any::<u8>()) {
            let mut bytes = SMALL.to_vec();
            bytes[at] = byte;
            let _ = Pickle::read(&bytes);
        }
    }
}
