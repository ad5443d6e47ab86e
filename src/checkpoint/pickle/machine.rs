//! The stack machine that a pickle is a program of: every opcode of protocols 0 to 5, and nothing that any of them would run.

use super::value::{Id, Pickle, Value};
use std::collections::HashMap;

/// A pickle that is being read.
pub(super) struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0, values: vec![], stack: vec![], marks: vec![], memo: HashMap::new() }
    }
    /// Runs to the end: every value, and which of them is the result.
    pub(super) fn run(mut self) -> Step<(Vec<Value>, Id)> {
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok((self.values, root));
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
