//! A pickled configuration as JSON: dictionaries, lists, texts and numbers.

use super::value::{Id, Pickle, Value};
use serde_json::{Map, Value as Json};

/// More values than any configuration has: one that many share is counted, and copied, for each.
const MOST_VALUES: usize = 1 << 14;
/// Deeper than any configuration.
const MOST_DEPTH: usize = 32;
/// Longer than any text of a configuration that is read here.
const MOST_TEXT: usize = 1024;

/// The value as JSON; what JSON has no place for is null. `None` where it is larger than any configuration.
pub(in crate::checkpoint) fn json(pickle: &Pickle, id: Id) -> Option<Json> {
    copy(pickle, id, &mut { MOST_VALUES }, MOST_DEPTH)
}

fn copy(pickle: &Pickle, id: Id, left: &mut usize, depth: usize) -> Option<Json> {
    *left = left.checked_sub(1)?;
    let depth = depth.checked_sub(1)?;
    Some(match pickle.get(id) {
        Value::Bool(value) => Json::from(*value),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value), // null where it is infinite or no number
        Value::Text(text) if text.len() <= MOST_TEXT => Json::from(&**text),
        Value::List(items) | Value::Tuple(items) => {
            Json::Array(items.iter().map(|item| copy(pickle, *item, left, depth)).collect::<Option<_>>()?)
        }
        Value::Dict(pairs) => Json::Object(object(pickle, pairs, left, depth)?),
        _ => Json::Null,
    })
}

/// Entries whose keys are texts; of two with one key, the later.
fn object(pickle: &Pickle, pairs: &[(Id, Id)], left: &mut usize, depth: usize) -> Option<Map<String, Json>> {
    let mut object = Map::new();
    for (key, value) in pairs {
        if let Value::Text(key) = pickle.get(*key)
            && key.len() <= MOST_TEXT
        {
            object.insert((**key).to_owned(), copy(pickle, *value, left, depth)?);
        }
    }
    Some(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(bytes: &[u8]) -> Option<Json> {
        let pickle = Pickle::read(bytes).unwrap();
        super::json(&pickle, pickle.root())
    }

    #[test]
    fn a_configuration_of_yacs() {
        // As pickle writes CfgNode({'A': 1, 'B': CfgNode({'C': [0.5, True, None]}), 2: 'x'}) at protocol 2.
        let text =
            b"\x80\x02cyacs.config\nCfgNode\nq\x00)\x81q\x01(X\x01\x00\x00\x00AK\x01X\x01\x00\x00\x00Bh\x00)\x81q\x02\
            X\x01\x00\x00\x00C]q\x03(G?\xe0\x00\x00\x00\x00\x00\x00\x88Nes}q\x04bK\x02X\x01\x00\x00\x00xu}q\x05b.";
        assert_eq!(of(text), Some(json!({"A": 1, "B": {"C": [0.5, true, null]}})));
    }

    #[test]
    fn numbers_of_every_protocol() {
        assert_eq!(
            of(b"(F0.25\nF1e400\nG\x7f\xf0\x00\x00\x00\x00\x00\x00Fx\nl."),
            Some(json!([0.25, null, null, null]))
        );
    }

    #[test]
    fn what_is_larger_than_any_configuration_is_left() {
        let started = std::time::Instant::now();
        // Each list holds the one before it twice: 2^40 values, or one that holds itself.
        let doubled: Vec<u8> =
            b"]q\x00".iter().chain(&b"q\x01]q\x00(h\x01h\x01e".repeat(40)).chain(b".").copied().collect();
        assert_eq!(of(&doubled), None);
        assert_eq!(of(b"]q\x00h\x00a."), None);
        let deep: Vec<u8> = b"(".repeat(5000).into_iter().chain(b"t".repeat(5000)).chain(*b".").collect();
        assert_eq!(of(&deep), None);
        let mut long = b"(X\x00\x00\x10\x00".to_vec();
        long.extend([b'a'; 1 << 20]);
        long.extend(b"p0\n".iter().chain(&b"g0\n".repeat(10_000)).chain(b"l."));
        assert!(of(&long).unwrap().as_array().unwrap().iter().all(Json::is_null));
        assert!(started.elapsed().as_secs() < 2);
    }
}
