//! Reading a pickle without executing anything.

use super::machine::Machine;
use super::value::Pickle;

impl Pickle {
    /// Reads a pickle of protocol 0 to 5.
    ///
    /// Every opcode takes at least one byte, makes at most one value and copies none, so memory is bounded by the input's length.
    ///
    /// # Errors
    /// A pickle that ends early, takes what is not on its stack, or holds more than [`Self::MAX_VALUES`].
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let (values, root) = Machine::new(bytes).run()?;
        Ok(Self { values, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::pickle::Value;
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
