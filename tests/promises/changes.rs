//! A message with each of its places changed, one at a time.

use serde_json::Value;

/// Every place of a JSON text where something stands that is no list and no object, with a name without positions.
fn leaves(value: &Value, pointer: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let escape = |key: &String| key.replace('~', "~0").replace('/', "~1");
            fields.iter().for_each(|(key, inner)| leaves(inner, &format!("{pointer}/{}", escape(key)), out));
        }
        Value::Array(items) if !items.is_empty() => {
            (0..).zip(items).for_each(|(index, inner): (u32, _)| leaves(inner, &format!("{pointer}/{index}"), out));
        }
        _ => out.push(pointer.to_owned()),
    }
}

/// Other things that could stand in a place.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Number(number) => {
            let number = number.as_i64().expect("whole");
            [1, -1, 1_000_000].into_iter().map(|step| Value::from(number.saturating_add(step).max(0))).collect()
        }
        Value::Bool(flag) => vec![Value::from(!flag)],
        Value::Null => vec![Value::from(0), Value::from(600), Value::from(100_000)],
        Value::String(text) => {
            let mut swapped: Vec<String> =
                ["V0", "V1", "V2", "Outbound", "ScriptEnforced", "SimpleTaproot", "FullySpent", "Tier0"]
                    .map(str::to_owned)
                    .to_vec();
            // Another digit at the end: of hexadecimal data another number, of the name of a variant nothing at all.
            if let Some(last) = text.chars().last() {
                let other = if last == '1' { '2' } else { '1' };
                swapped.push(format!("{}{other}", &text[..text.len() - 1]));
            }
            swapped.into_iter().map(Value::from).collect()
        }
        Value::Array(_) | Value::Object(_) => Vec::new(),
    }
}

/// The places of a message of which some change is not refused.
pub(crate) fn unrefused<T>(honest: &T, refused: impl Fn(&T) -> bool) -> (usize, Vec<String>)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq,
{
    let json = serde_json::to_value(honest).unwrap();
    let mut places = Vec::new();
    leaves(&json, "", &mut places);
    let (mut tried, mut accepted) = (0, Vec::new());
    for place in places {
        let mut passed = false;
        for other in others(json.pointer(&place).unwrap()) {
            let mut changed = json.clone();
            *changed.pointer_mut(&place).unwrap() = other;
            // What does not parse can not be said.
            let Ok(changed) = serde_json::from_value::<T>(changed) else { continue };
            if changed == *honest {
                continue;
            }
            tried += 1;
            passed |= !refused(&changed);
        }
        if passed {
            accepted.push(place.replace('/', "."));
        }
    }
    (tried, accepted)
}
