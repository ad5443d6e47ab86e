//! Imports run strictly downwards, and nowhere in a circle: the floors of CONTRIBUTING.md, kept.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module's floor; modules of one floor do not import each other.
const FLOORS: [(&str, usize); 30] = [
    ("error", 0),
    ("readback", 0),
    ("bitmap", 1),
    ("bounds", 1),
    ("finite", 1),
    ("named", 1),
    ("task", 2),
    ("files", 3),
    ("ops", 3),
    ("runtime", 3),
    ("sample", 3),
    ("checkpoint", 4),
    ("hub", 4),
    ("params", 5),
    ("layers", 6),
    ("swin", 7),
    ("heads", 8),
    ("tad", 8),
    ("model", 9),
    ("data", 10),
    ("loss", 10),
    ("metrics", 10),
    ("picture", 10),
    ("scenes", 10),
    ("report", 11),
    ("decode", 10),
    ("parity", 12),
    ("predict", 12),
    ("train", 12),
    ("lib", 13),
];

fn floor(module: &str) -> usize {
    FLOORS.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("`{module}` has no floor")).1
}

/// The crate's files by their module's path, `ops::cpu::simd`, and what each names of the others.
struct House {
    files: BTreeMap<String, File>,
}

struct File {
    /// Code without comments, texts and tests.
    code: String,
    /// What `use` brings in: each name, and the path that it stands for, from the crate's root.
    names: BTreeMap<String, String>,
}

/// Code alone: comments and texts go, and so does everything from a file's tests on.
fn code_of(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let (mut code, mut rest) = (String::new(), source);
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '"' => {
                let (mut end, bytes) = (1, rest.as_bytes());
                while end < bytes.len() && bytes[end] != b'"' {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                (end + 1).min(rest.len())
            }
            '\'' if rest.starts_with("'\"'") => 3,
            _ => {
                code.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        rest = &rest[end..];
    }
    code
}

/// The paths of a `use` tree: `a::{b, c::d as e}` names `a::b` as b and `a::c::d` as e.
fn leaves(tree: &str, prefix: &str, found: &mut Vec<(String, String)>) {
    let tree = tree.trim();
    let Some((before, group)) = tree.split_once('{') else {
        let (path, name) = tree.split_once(" as ").unwrap_or((tree, tree.rsplit("::").next().unwrap_or(tree)));
        let path = format!("{prefix}{path}");
        let path = path.strip_suffix("::self").unwrap_or(&path).to_owned();
        let name =
            if name == "self" { path.rsplit("::").next().unwrap_or_default().to_owned() } else { name.to_owned() };
        return found.push((name, path));
    };
    let group = group.strip_suffix('}').unwrap_or_else(|| panic!("`{tree}` is no use tree"));
    let (mut depth, mut start) = (0, 0);
    for (i, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[start..i].trim().is_empty() {
                    leaves(&group[start..i], &format!("{prefix}{}", before.trim()), found);
                }
                start = i + 1;
            }
            _ => {}
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

impl House {
    fn read(src: &Path) -> Self {
        let mut paths = Vec::new();
        sources(src, &mut paths);
        let modules: BTreeSet<String> = paths.iter().map(|path| module_of(src, path)).collect();
        let files = paths.iter().map(|path| {
            let module = module_of(src, path);
            let code = code_of(&std::fs::read_to_string(path).unwrap());
            let mut names = BTreeMap::new();
            for statement in uses(&code) {
                let mut found = Vec::new();
                leaves(statement, "", &mut found);
                let inside = |path: &str| format!("{module}::{}", path.split("::").next().unwrap_or_default());
                let target = |path: &str| match modules.contains(&inside(path)) {
                    true => Some(format!("{module}::{path}")),
                    false => absolute(&module, path),
                };
                names.extend(found.into_iter().filter_map(|(name, path)| Some((name, target(&path)?))));
            }
            (module, File { code, names })
        });
        Self { files: files.collect() }
    }

    /// The file that defines what a path from the root names, re-exports followed.
    fn definer(&self, path: &str) -> Option<String> {
        let parts: Vec<&str> = path.split("::").collect();
        let known = (1..=parts.len()).rev().find(|n| self.files.contains_key(&parts[..*n].join("::")));
        let (module, rest) = match known {
            Some(n) => (parts[..n].join("::"), &parts[n..]),
            None => ("lib".to_owned(), &parts[..]),
        };
        let Some(name) = rest.first() else { return Some(module) };
        match self.files.get(&module)?.names.get(*name) {
            Some(target) if *target != path => self.definer(&[&[target.as_str()], &rest[1..]].concat().join("::")),
            _ if module == "lib" => None, // a dependency of the crate
            _ => Some(module),
        }
    }

    /// The files that a file takes something of.
    fn taken(&self, module: &str) -> BTreeSet<String> {
        let file = &self.files[module];
        let mut paths: Vec<String> = spelt(&file.code).filter_map(|path| absolute(module, &path)).collect();
        for (name, target) in &file.names {
            let through: Vec<String> = after(&file.code, name).map(|rest| format!("{target}::{rest}")).collect();
            let handed_on = target.starts_with(&format!("{module}::")) && !is_used(&file.code, name);
            match self.files.contains_key(target) {
                true => paths.extend(through), // a module, of which names are taken by the way
                false if handed_on => {}       // a `mod.rs` that hands on what its files define takes nothing of them
                false => paths.push(target.clone()),
            }
        }
        paths.iter().filter_map(|path| self.definer(path)).filter(|taken| taken != module && taken != "lib").collect()
    }
}

/// `src/ops/cpu/simd.rs` as `ops::cpu::simd`.
fn module_of(src: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(src).unwrap().with_extension("");
    let module = relative.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("::");
    module.strip_suffix("::mod").unwrap_or(&module).to_owned()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if !path.ends_with("tests.rs") => found.push(path),
            false => {}
        }
    }
}

/// The trees of the `use` statements.
fn uses(code: &str) -> impl Iterator<Item = &str> {
    let starts = code.match_indices("use ").filter(|(at, _)| !code[..*at].ends_with(is_word));
    starts.filter_map(|(at, _)| code[at + 4..].split(';').next())
}

/// Whether a name appears outside `use` statements.
fn is_used(code: &str, name: &str) -> bool {
    let in_uses: usize = uses(code).map(|tree| count(tree, name)).sum();
    let declared = code.matches(&format!("mod {name};")).count();
    count(code, name) > in_uses + declared
}

fn count(code: &str, name: &str) -> usize {
    let whole =
        |(at, _): &(usize, &str)| !code[..*at].ends_with(is_word) && !code[at + name.len()..].starts_with(is_word);
    code.match_indices(name).filter(whole).count()
}

/// What is named through a module: `gelu` of `ops::gelu(x)`.
fn after<'a>(code: &'a str, module: &'a str) -> impl Iterator<Item = &'a str> {
    let starts = code.match_indices(module).filter(|(at, _)| !code[..*at].ends_with(|c| is_word(c) || c == ':'));
    let rest = starts.filter_map(|(at, _)| code[at + module.len()..].strip_prefix("::"));
    rest.filter_map(|rest| rest.split(|c| !is_word(c)).next().filter(|name| !name.is_empty()))
}

/// Paths that are spelt out from the root or from a module above, outside `use` statements.
fn spelt(code: &str) -> impl Iterator<Item = String> {
    let inside: Vec<(usize, usize)> =
        uses(code).map(|tree| (tree.as_ptr() as usize - code.as_ptr() as usize, tree.len())).collect();
    let outside = move |at: usize| !inside.iter().any(|(start, len)| (*start..start + len).contains(&at));
    ["crate::", "super::"].into_iter().flat_map(move |root| {
        let outside = outside.clone();
        let starts = code.match_indices(root).filter(move |(at, _)| {
            outside(*at)
                && !code[..*at].ends_with(is_word)
                && !code[..*at].ends_with("::")
                && !code[..*at].ends_with("(in ")
        });
        starts.map(|(at, _)| code[at..].chars().take_while(|c| is_word(*c) || *c == ':').collect())
    })
}

/// A path from the crate's root, as a module writes it; `None` where it leads out of the crate.
fn absolute(module: &str, path: &str) -> Option<String> {
    let mut parts = path.trim_end_matches(':').split("::").peekable();
    let mut at: Vec<&str> = match *parts.peek()? {
        "crate" => Vec::new(),
        "super" | "self" => module.split("::").collect(),
        _ => return None,
    };
    while let Some(part @ ("crate" | "self" | "super")) = parts.peek().copied() {
        if part == "super" {
            at.pop();
        }
        parts.next();
    }
    at.extend(parts);
    Some(at.join("::"))
}

fn house() -> House {
    House::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn no_module_imports_from_its_own_floor_or_above() {
    let (house, mut checked) = (house(), 0);
    let top = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    for module in house.files.keys().filter(|module| *module != "lib") {
        for taken in house.taken(module) {
            let (from, to) = (top(module), top(&taken));
            let allowed = from == to || floor(&to) < floor(&from);
            assert!(allowed, "{module} imports {taken}, which is not below `{from}`");
            checked += 1;
        }
    }
    assert!(checked > 300, "only {checked} imports were found");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let house = house();
    let taken: BTreeMap<&String, BTreeSet<String>> =
        house.files.keys().map(|module| (module, house.taken(module))).collect();
    // What takes nothing of those that are left is taken away, until only circles and what leads to them are left.
    let mut left: BTreeSet<&String> = house.files.keys().collect();
    loop {
        let free: Vec<&String> =
            left.iter().filter(|module| !taken[**module].iter().any(|name| left.contains(name))).copied().collect();
        if free.is_empty() {
            break;
        }
        for module in free {
            left.remove(module);
        }
    }
    let Some(first) = left.first() else { return };
    let mut way = vec![(*first).clone()];
    loop {
        let next = taken[way.last().unwrap()].iter().find(|name| left.contains(name)).unwrap().clone();
        if let Some(at) = way.iter().position(|module| *module == next) {
            panic!("a circle of imports: {} -> {next}", way[at..].join(" -> "));
        }
        way.push(next);
    }
}

/// Each read waits for the device, however little it brings: a training step has one, and `readback` makes it.
#[test]
fn what_a_step_computes_is_read_back_in_one_place() {
    const READS: [&str; 5] = [".to_scalar", ".to_vec0", ".to_vec1", ".to_vec2", ".to_vec3"];
    const OF_A_STEP: [&str; 9] = ["finite", "heads", "layers", "loss", "model", "ops", "swin", "tad", "train"];
    let house = house();
    let in_a_step = |module: &str| OF_A_STEP.iter().any(|top| module.split("::").next() == Some(top));
    let of_tests = |module: &str| module.ends_with("::tests") || module.ends_with("::finite_difference");
    let reads = house.files.iter().filter(|(module, file)| {
        in_a_step(module) && !of_tests(module) && READS.iter().any(|read| file.code.contains(read))
    });
    let reads: Vec<&str> = reads.map(|(module, _)| module.as_str()).collect();
    // Checkpoints' and optimizers' files, and vectors of a kernel that runs on the CPU.
    assert_eq!(reads, ["model::released::import", "ops::heads::multi_scale", "train::adamw"]);
}

/// A page that shows a signature must show its types: those that `ops` hides stand in none outside it.
#[test]
fn what_the_docs_hide_stands_in_no_signature_that_they_show() {
    let house = house();
    let ops = &house.files["ops"].code;
    let hidden: BTreeSet<&str> = ops
        .split("#[doc(hidden)]")
        .skip(1)
        .flat_map(|rest| rest.split(';').next().unwrap_or_default().split(|c| !is_word(c)))
        .filter(|name| name.starts_with(char::is_uppercase))
        .collect();
    assert!(hidden.contains("AttentionHalf") && hidden.contains("LowRankPath"), "{hidden:?}");
    for (module, file) in house.files.iter().filter(|(module, _)| !module.starts_with("ops")) {
        let of_ops = |name: &str| file.names.get(name).is_some_and(|target| target.starts_with("ops::"));
        for (at, _) in file.code.match_indices("pub ") {
            let item = &file.code[at..];
            let end = if item.starts_with("pub fn ") { item.find('{') } else { item.find('\n') };
            let shown = &item[..end.unwrap_or(item.len())];
            let named =
                |name: &&&str| shown.contains(&format!("ops::{name}")) || of_ops(name) && count(shown, name) > 0;
            let of_hidden = hidden.iter().find(|name| !shown.starts_with("pub use ") && named(name));
            assert_eq!(of_hidden, None, "{module} shows `{shown}`");
        }
    }
}
