//! Where two configurations differ, field by field.

use crate::Result;
use crate::model::TADFormerConfig;
use serde_json::Value;

/// One sentence for each field that an adapter's configuration and a model's have otherwise.
///
/// # Errors
/// None in practice; what writes a configuration can fail.
pub(super) fn differences(adapter: &TADFormerConfig, model: &TADFormerConfig) -> Result<Vec<String>> {
    let mut found = Vec::new();
    compare("", Some(&fields(adapter)?), Some(&fields(model)?), &mut found);
    Ok(found)
}

/// A configuration as it stands in a file, its tasks as on a command line.
fn fields(config: &TADFormerConfig) -> Result<Value> {
    let mut fields = serde_json::to_value(config).map_err(candle_core::Error::wrap)?;
    fields["tasks"] = config.tasks.to_string().into();
    Ok(fields)
}

fn compare(place: &str, adapter: Option<&Value>, model: Option<&Value>, found: &mut Vec<String>) {
    let fields = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    match (fields(adapter), fields(model)) {
        (Some(mine), Some(its)) if mine.get("kind") == its.get("kind") => {
            let new = its.keys().filter(|key| !mine.contains_key(*key));
            for key in mine.keys().chain(new) {
                let below = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                compare(&below, mine.get(key), its.get(key), found);
            }
        }
        _ if adapter == model => {}
        _ => {
            let text = |value: Option<&Value>| match value {
                None => "none".to_owned(),
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
            };
            found.push(format!("{place}: the adapter has {}, the model {}", text(adapter), text(model)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_field_that_differs_is_named_alone() {
        let adapter = json!({ "a": { "rank": [8], "scale": 4.0 }, "b": { "kind": "x", "c": 1 }, "d": 1 });
        let model = json!({ "a": { "rank": [4], "scale": 4.0 }, "b": { "kind": "y" }, "e": "f" });
        let found = |adapter: &Value, model: &Value| {
            let mut found = Vec::new();
            compare("", Some(adapter), Some(model), &mut found);
            found
        };
        assert_eq!(
            found(&adapter, &model),
            [
                "a.rank: the adapter has [8], the model [4]",
                r#"b: the adapter has {"c":1,"kind":"x"}, the model {"kind":"y"}"#,
                "d: the adapter has 1, the model none",
                "e: the adapter has none, the model f",
            ]
        );
        assert!(found(&adapter, &adapter).is_empty());
    }
}
