//! Imports run strictly downwards: the floors of CONTRIBUTING.md, kept.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// Each module's floor; modules of one floor do not import each other.
const FLOORS: [(&str, usize); 28] = [
    ("error", 0),
    ("finite", 0),
    ("bounds", 1),
    ("named", 1),
    ("task", 2),
    ("sample", 3),
    ("files", 3),
    ("device", 3),
    ("memory", 3),
    ("threads", 3),
    ("ops", 3),
    ("hub", 4),
    ("params", 4),
    ("layers", 5),
    ("swin", 6),
    ("tad", 7),
    ("heads", 7),
    ("model", 8),
    ("data", 9),
    ("loss", 9),
    ("metrics", 9),
    ("picture", 9),
    ("predict", 10),
    ("train", 10),
    ("parity", 10),
    ("lib", 11),
    ("tests", 11),
    ("bin", 11),
];

/// What the crate's root re-exports, and from where.
const ROOT: [(&str, &str); 15] = [
    ("Error", "error"),
    ("Printable", "error"),
    ("Result", "error"),
    ("Task", "task"),
    ("TaskKind", "task"),
    ("TaskSet", "task"),
    ("Batch", "sample"),
    ("Sample", "sample"),
    ("SwinConfig", "swin"),
    ("TADBlock", "tad"),
    ("TADFormer", "model"),
    ("TADFormerBuilder", "model"),
    ("TADFormerConfig", "model"),
    ("Outputs", "model"),
    ("Predictor", "predict"),
];

fn floor(module: &str) -> usize {
    FLOORS.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("`{module}` has no floor")).1
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The modules that a file's `use crate::...;` lines name.
fn imports(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut modules = Vec::new();
    for statement in code.split("use crate::").skip(1) {
        let names = statement.split(';').next().unwrap_or_default();
        let inside = names.strip_prefix('{').and_then(|inside| inside.strip_suffix('}'));
        let parts = inside.map_or(vec![names], |inside| inside.split(',').collect());
        for part in parts {
            let first = part.trim().split("::").next().unwrap_or_default();
            let root = ROOT.iter().find(|(name, _)| *name == first);
            if !first.is_empty() {
                modules.push(root.map_or(first, |(_, module)| module).to_owned());
            }
        }
    }
    modules
}

#[test]
fn no_module_imports_from_its_own_floor_or_above() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut checked = 0;
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap();
        let module = relative.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        if module == "lib" {
            continue;
        }
        for import in imports(&std::fs::read_to_string(&path).unwrap()) {
            let allowed = import == module || floor(&import) < floor(&module);
            assert!(allowed, "{} imports `{import}`, which is not below `{module}`", relative.display());
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} imports were found");
}
