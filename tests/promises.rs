//! What the documents say of this project's own files is so: marks stand where they are said to stand, and the tests,
//! files and patches that are named exist. And for each sentence that `src/lib.rs` promises, the index names a test.

use std::fs;
use std::path::{Path, PathBuf};

/// The sources of each backend.
const BACKENDS: [(&str, &[&str]); 3] = [
    ("epoll", &["src/sys/unix", "src/sys/epoll"]),
    ("kqueue", &["src/sys/unix", "src/sys/kqueue"]),
    ("IOCP", &["src/sys/iocp"]),
];

/// The sources that all backends share.
const SHARED: [&str; 5] = [
    "src/poll.rs",
    "src/stream.rs",
    "src/listener.rs",
    "src/source.rs",
    "src/sys/connect.rs",
];

/// The sources of a backend, with those that it shares.
fn sources(folders: &[&str]) -> impl Iterator<Item = String> {
    SHARED.iter().chain(folders).flat_map(|name| files(name))
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The file itself, or all that are in the folder.
fn files(name: &str) -> Vec<String> {
    if path(name).is_file() {
        return vec![name.to_string()];
    }
    let mut files: Vec<_> = fs::read_dir(path(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .map(|entry| format!("{name}/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    files.sort();
    files
}

/// A text for readers, and where it stands.
struct Document {
    name: String,
    text: String,
}

impl Document {
    fn open(name: &str) -> Document {
        let mut text = read(name).replace("\r\n", "\n");
        if name.ends_with(".rs") {
            let lines = text.lines().filter_map(|line| line.strip_prefix("//!"));
            text = lines
                .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
                .collect();
        }
        let name = name.to_string();
        Document { name, text }
    }

    fn all() -> Vec<Document> {
        let mut names = files("src/guide");
        names.extend(["README.md".to_string(), "src/lib.rs".to_string()]);
        names.iter().map(|name| Document::open(name)).collect()
    }

    /// What stands between two fences, and what does not.
    fn parts(&self) -> (Vec<&str>, Vec<&str>) {
        let (mut in_fences, mut outside) = (Vec::new(), Vec::new());
        for (i, part) in self.text.split("```").enumerate() {
            match i % 2 {
                0 => outside.push(part),
                _ => in_fences.push(part),
            }
        }
        (in_fences, outside)
    }

    /// What stands between two backticks, with a space for the end of a line.
    fn code(&self) -> Vec<String> {
        let mut code = Vec::new();
        for paragraph in self.parts().1.iter().flat_map(|part| part.split("\n\n")) {
            let pieces: Vec<_> = paragraph.split('`').collect();
            assert!(
                pieces.len() % 2 == 1,
                "{}: a backtick too many in {paragraph:?}",
                self.name
            );
            let spans = pieces.iter().skip(1).step_by(2);
            code.extend(spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        code
    }

    fn rows(&self) -> impl Iterator<Item = Vec<&str>> {
        let lines = self.text.lines().filter(|line| line.starts_with('|'));
        lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
    }

    /// The marks that it cites: `[so]` in backticks, and at the beginning of a line of a drawing.
    fn marks(&self) -> Vec<String> {
        let mut marks: Vec<_> = self.code().iter().filter_map(|code| mark(code)).collect();
        let drawings = self.parts().0.into_iter();
        for line in drawings.flat_map(|drawing| drawing.strip_prefix("text").unwrap_or("").lines())
        {
            let words = line.split_inclusive(']').map_while(mark);
            marks.extend(words);
        }
        marks
    }
}

/// `so`, if this is `[so]`.
fn mark(text: &str) -> Option<String> {
    let name = text.strip_prefix('[')?.strip_suffix(']')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    is_name.then(|| name.to_string())
}

/// The marks in the comments of a source file, in their order. A link, `[so](there)`, is none.
fn marks_in_comments(source: &str) -> Vec<String> {
    let mut marks = Vec::new();
    for comment in source
        .lines()
        .filter_map(|line| Some(line.split_once("//")?.1))
    {
        for (start, _) in comment.match_indices('[') {
            let rest = &comment[start..];
            let Some(end) = rest.find(']') else { continue };
            if !rest[end + 1..].starts_with(['(', '[', ':']) {
                marks.extend(mark(&rest[..=end]));
            }
        }
    }
    marks
}

/// The guide's table of marks: each one, and the backends that have it.
fn table() -> Vec<(String, Vec<String>)> {
    let chapter = Document::open("src/guide/ch4_life.md");
    let mut table = Vec::new();
    for row in chapter.rows() {
        let name = row[0].trim_matches('`');
        if let (Some(name), [_, _, backends]) = (mark(name), &row[..]) {
            table.push((name, backends.split(", ").map(str::to_string).collect()));
        }
    }
    assert!(table.len() > 10, "where is the table of the marks?");
    table
}

#[test]
fn a_mark_stands_once_in_each_backend_that_has_it() {
    let table = table();
    for (backend, folders) in BACKENDS {
        let mut marks = Vec::new();
        for file in sources(folders) {
            marks.extend(marks_in_comments(&read(&file)));
        }
        for (mark, backends) in &table {
            let expected = backends.iter().filter(|name| *name == backend).count();
            let found = marks.iter().filter(|name| *name == mark).count();
            assert_eq!(found, expected, "[{mark}] in the sources of {backend}");
        }
    }
    for name in table.iter().flat_map(|(_, backends)| backends) {
        assert!(
            BACKENDS.iter().any(|(backend, _)| backend == name),
            "{name}?"
        );
    }
}

#[test]
fn a_mark_that_stands_somewhere_is_explained() {
    let table = table();
    for (i, (mark, _)) in table.iter().enumerate() {
        let twice = table[..i].iter().any(|(other, _)| other == mark);
        assert!(!twice, "[{mark}] is explained twice");
    }
    for (_, folders) in BACKENDS {
        for file in sources(folders) {
            for mark in marks_in_comments(&read(&file)) {
                let is_explained = table.iter().any(|(name, _)| *name == mark);
                assert!(is_explained, "[{mark}] in {file} is not explained");
            }
        }
    }
}

#[test]
fn a_mark_that_is_cited_is_explained() {
    let table = table();
    for document in Document::all() {
        for mark in document.marks() {
            let is_explained = table.iter().any(|(name, _)| *name == mark);
            assert!(is_explained, "[{mark}] in {} is unknown", document.name);
        }
    }
}

#[test]
fn a_file_that_is_named_is_there() {
    let mut named = 0;
    for document in Document::all() {
        for code in document.code() {
            let file = code.split(' ').next().unwrap();
            let mut folders = vec!["src/", "tests/", "examples/"];
            if path(".ci").exists() {
                folders.extend([".ci/", ".github/"]); // a package has no need of them
            }
            if folders.iter().any(|folder| file.starts_with(folder)) {
                named += 1;
                assert!(path(file).exists(), "{file}, named in {}", document.name);
            }
        }
    }
    assert!(named > 100, "{named}");
}

/// In the documents: `tests/file.rs name_of_a_test`, or a command, `cargo test --test file name_of_a_test`.
fn named_test(code: &str) -> Option<(&str, &str)> {
    let words: Vec<_> = code.split(' ').collect();
    match words[..] {
        [file, test] => Some((file.strip_prefix("tests/")?.strip_suffix(".rs")?, test)),
        ["cargo", "test", "--test", file] => Some((file, "")),
        ["cargo", "test", "--test", file, test] => Some((file, test)),
        _ => None,
    }
}

#[test]
fn a_test_that_is_named_is_there() {
    let mut named = 0;
    for document in Document::all() {
        let code = document.code();
        let (blocks, _) = document.parts();
        let commands = blocks.iter().flat_map(|block| block.lines());
        for code in commands.chain(code.iter().map(String::as_str)) {
            if let Some((file, test)) = named_test(code) {
                named += 1;
                let source = read(&format!("tests/{file}.rs"));
                assert!(
                    test.is_empty() || has_test(&source, test),
                    "{file}: {test}, named in {}",
                    document.name
                );
            }
        }
    }
    assert!(named > 50, "{named}");
}

fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().collect();
    let head = format!("fn {name}() {{");
    lines
        .iter()
        .position(|line| *line == head)
        .is_some_and(|at| {
            let mut attributes = lines[..at].iter().rev();
            attributes
                .by_ref()
                .take_while(|line| line.starts_with("#["))
                .any(|line| *line == "#[test]")
        })
}

/// A text without what is there to be seen only: links, backticks, ends of lines.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        plain += before;
        rest = after.split_once(')').expect("a link has an end").1;
    }
    plain += rest;
    let plain: String = plain.chars().filter(|c| !"`[]*".contains(*c)).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_promise_is_in_the_index_with_a_test_and_a_place() {
    let index = Document::open("src/guide/promises.md");
    let mut promises = Vec::new();
    let is_promise =
        |row: &Vec<&str>| !["---", "the promise, and where it is kept"].contains(&row[0]);
    for row in index.rows().filter(is_promise) {
        let [promise, tests] = row[..] else {
            panic!("two cells to a row: {row:?}");
        };
        let (promise, places) = promise.split_once("<br>").unwrap_or((promise, ""));
        let has_test = tests.split('`').any(|code| named_test(code).is_some());
        assert!(has_test, "no test for: {promise}");
        assert!(!places.is_empty(), "no place for: {promise}");
        promises.push(plain(promise));
    }
    let front_page = Document::open("src/lib.rs");
    let section = front_page.text.split("\n# What it promises\n").nth(1);
    let section = section.and_then(|text| text.split("\n# ").next()).unwrap();
    let mut sentences = 0;
    for point in section.split("\n- ").skip(1).map(plain) {
        for sentence in point.split_inclusive(". ").map(str::trim) {
            sentences += 1;
            let is_there = promises.iter().any(|promise| promise.contains(sentence));
            assert!(is_there, "not in the index: {sentence}");
        }
    }
    assert!(sentences > 10, "{sentences}");
}

/// A patch whose test is missing proves nothing.
#[test]
fn a_patch_names_tests_that_are_there() {
    if !path(".ci").exists() {
        return; // this is the package, which brings no patches
    }
    let folders = files(".ci/mutants").into_iter();
    let patches = folders.filter(|name| path(name).is_dir());
    for name in patches.flat_map(|folder| files(&folder)) {
        let patch = read(&name);
        let heads = patch.lines();
        let tests: Vec<_> = heads
            .filter_map(|line| line.strip_prefix("Caught by: "))
            .collect();
        assert!(!tests.is_empty(), "{name} names no test");
        for test in tests {
            let (file, test) = named_test(test).unwrap_or_else(|| panic!("{name}: {test}?"));
            let source = read(&format!("tests/{file}.rs"));
            assert!(has_test(&source, test), "{name}: {file} has no {test}");
        }
    }
}

/// Each row of the table has its patch, which is caught by the test that the row names. What the row names first is the
/// place: a mark in a file that the patch touches, or that file itself.
#[test]
fn an_experiment_has_a_patch_that_says_the_same() {
    if !path(".ci").exists() {
        return; // this is the package, which brings no patches
    }
    let mut experiments = 0;
    let document = Document::open("src/guide/experiments.md");
    for row in document.rows() {
        let code = row
            .iter()
            .flat_map(|cell| cell.split('`').skip(1).step_by(2));
        let code: Vec<_> = code.collect();
        let Some(name) = code
            .iter()
            .find_map(|code| code.strip_prefix(".ci/mutants/"))
        else {
            continue;
        };
        experiments += 1;
        let patch = read(&format!(".ci/mutants/{name}"));
        let (file, test) = code
            .iter()
            .find_map(|code| named_test(code))
            .unwrap_or_else(|| panic!("no test for {name}"));
        let line = format!("Caught by: tests/{file}.rs {test}");
        assert!(
            patch.lines().any(|head| head == line),
            "{name} does not say: {line}"
        );
        let mut broken = patch.lines().filter_map(|line| line.strip_prefix("+++ b/"));
        let place = code[0];
        let is_touched = broken.any(|file| match mark(place) {
            Some(mark) => marks_in_comments(&read(file)).contains(&mark),
            None => file == place,
        });
        assert!(is_touched, "{name} does not touch {place}");
    }
    assert!(experiments >= 12, "{experiments}");
}

impl Document {
    /// The links' targets, with the name where the page defines it.
    fn links(&self) -> Vec<(Option<&str>, &str)> {
        let (_, outside) = self.parts();
        let mut links = Vec::new();
        for part in outside {
            let ends = part.split("](").skip(1);
            links.extend(ends.map(|rest| (None, rest.split_once(')').expect("a link ends").0)));
            links.extend(
                part.lines()
                    .filter_map(definition)
                    .map(|(name, target)| (Some(name), target)),
            );
        }
        links
    }

    /// As a forge makes anchors of headings.
    fn anchors(&self) -> Vec<String> {
        let (_, outside) = self.parts();
        let lines = outside.into_iter().flat_map(str::lines);
        lines
            .filter_map(|line| Some(line.strip_prefix('#')?.trim_start_matches('#').trim()))
            .map(|heading| heading.to_lowercase().replace(' ', "-"))
            .map(|anchor| anchor.replace(|c: char| !c.is_alphanumeric() && !"-_".contains(c), ""))
            .collect()
    }

    /// Where the file lies.
    fn folder(&self) -> &Path {
        Path::new(&self.name)
            .parent()
            .expect("a file is in a folder")
    }
}

/// `[name]: target`
fn definition(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('[')?.split_once("]: ")
}

/// The documents that are read as files: what a forge shows where they lie.
fn pages() -> Vec<Document> {
    let files = files("src/guide")
        .into_iter()
        .chain(["README.md".to_string()]);
    let is_page = |name: &String| name.ends_with(".md") && !name.ends_with("/links.md");
    files
        .filter(is_page)
        .map(|name| Document::open(&name))
        .collect()
}

#[test]
fn a_link_between_files_leads_somewhere() {
    for page in pages() {
        for (_, target) in page.links() {
            if target.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => page.name.clone(),
                _ => page.folder().join(file).to_str().unwrap().to_string(),
            };
            assert!(path(&file).exists(), "{target}, in {}", page.name);
            let is_there = anchor.is_empty()
                || !file.ends_with(".md")
                || Document::open(&file)
                    .anchors()
                    .iter()
                    .any(|other| other == anchor);
            assert!(is_there, "{target}, in {}", page.name);
        }
    }
}

/// In rustdoc the names of `links.md` count, in the files those of the page itself.
#[test]
fn a_link_leads_to_the_same_page_in_the_documentation() {
    let links = Document::open("src/guide/links.md");
    let names: Vec<_> = links.links();
    for page in pages() {
        for (name, target) in page.links() {
            let Some(name) = name else { continue };
            let there = names.iter().find(|(other, _)| *other == Some(name));
            let (_, there) =
                there.unwrap_or_else(|| panic!("[{name}] of {} is unknown", page.name));
            let guide = there
                .replace("crate::guide::", "")
                .replace("crate::guide", "README");
            let (file, anchor) = guide.split_once('#').unwrap_or((&guide, ""));
            let is_same = match target.split_once(".md") {
                Some((here, place)) => here == file && place.trim_start_matches('#') == anchor,
                None => there.starts_with("crate::") || there.starts_with("crate#"),
            };
            assert!(is_same, "[{name}] of {}: {target} and {there}", page.name);
        }
    }
}

/// A test that Windows runs compares the table of the source with what happens.
#[test]
fn the_transitions_are_the_same_in_the_guide_and_in_the_source() {
    let table = |name| {
        let text = Document::open(name).text;
        let rows = text.lines().filter(|line| line.starts_with("| "));
        rows.map(str::to_string).collect::<Vec<_>>()
    };
    let source = table("src/sys/iocp/operation.rs");
    assert_eq!(table("src/guide/ch4b_lending.md"), source);
    assert!(source.len() > 10, "where is the table?");
}

/// At 200 words a minute, the code included.
#[test]
fn a_chapter_takes_as_long_as_the_guide_says() {
    let guide = Document::open("src/guide/README.md");
    let mut chapters = 0;
    for row in guide.rows() {
        let [chapter, minutes, _] = row[..] else {
            continue;
        };
        let Some((_, name)) = chapter.split_once("][") else {
            continue;
        };
        let name = name.trim_end_matches(']');
        let file = guide
            .links()
            .into_iter()
            .find(|(other, _)| *other == Some(name))
            .unwrap()
            .1;
        let text = Document::open(&format!("src/guide/{file}")).text;
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("# ") && definition(line).is_none());
        let words = lines.flat_map(str::split_whitespace).count();
        let said: usize = minutes.parse().expect("a number of minutes");
        assert!(
            words.div_ceil(200).abs_diff(said) <= 1,
            "{file}: {words} words in {said} minutes"
        );
        chapters += 1;
    }
    assert!(chapters >= 12, "{chapters}");
}
