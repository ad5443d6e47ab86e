//! Where two configurations differ, field by field.

use serde::Serialize;
use serde_json::{Map, Value};

/// One sentence for each field in which an adapter's configuration is another than a model's, by the field's path in the file.
pub(super) fn differences<T: Serialize>(adapter: &T, model: &T) -> Vec<String> {
    let mut found = Vec::new();
    match (serde_json::to_value(adapter), serde_json::to_value(model)) {
        (Ok(adapter), Ok(model)) => collect("", &adapter, &model, &mut found),
        (Err(error), _) | (_, Err(error)) => found.push(error.to_string()),
    }
    found
}

/// Goes down as far as both sides have the same fields, or lists of one length.
fn collect(path: &str, adapter: &Value, model: &Value, found: &mut Vec<String>) {
    match (adapter, model) {
        _ if adapter == model => {}
        (Value::Object(a), Value::Object(m)) => fields(path, a, m, found),
        (Value::Array(a), Value::Array(m)) if a.len() == m.len() => {
            let pairs = a.iter().zip(m).enumerate();
            pairs.for_each(|(i, (a, m))| collect(&format!("{path}[{i}]"), a, m, found));
        }
        _ => found.push(format!("{path}: the adapter has {adapter}, the model {model}")),
    }
}

fn fields(path: &str, adapter: &Map<String, Value>, model: &Map<String, Value>, found: &mut Vec<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, a) in adapter {
        match model.get(name) {
            Some(m) => collect(&below(name), a, m, found),
            None => found.push(format!("{}: the adapter has {a}, the model nothing", below(name))),
        }
    }
    for (name, m) in model.iter().filter(|(name, _)| !adapter.contains_key(*name)) {
        found.push(format!("{}: the adapter has nothing, the model {m}", below(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_differs_is_named_by_its_path_and_nothing_else() {
        let adapter = json!({
            "swin": { "window": 7, "depths": [2, 2, 6, 2] },
            "method": { "rank": [8], "gate": "scalar", "linears": ["qkv", "proj"], "filter": { "kind": "dynamic", "kernel": 3 } },
        });
        let mut model = adapter.clone();
        assert!(differences(&adapter, &model).is_empty());
        model["method"]["rank"][0] = json!(4);
        model["swin"]["depths"][2] = json!(18);
        model["method"]["linears"] = json!(["qkv"]);
        model["method"]["filter"] = json!({ "kind": "none" });
        let want = [
            "method.filter.kernel: the adapter has 3, the model nothing",
            r#"method.filter.kind: the adapter has "dynamic", the model "none""#,
            r#"method.linears: the adapter has ["qkv","proj"], the model ["qkv"]"#,
            "method.rank[0]: the adapter has 8, the model 4",
            "swin.depths[2]: the adapter has 6, the model 18",
        ];
        let mut found = differences(&adapter, &model);
        found.sort();
        assert_eq!(found, want);
        let (one, none) = (json!({ "a": 1 }), json!({}));
        assert_eq!(differences(&none, &one), ["a: the adapter has nothing, the model 1"]);
    }
}
