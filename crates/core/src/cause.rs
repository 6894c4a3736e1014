//! Finds why a program ended in the last lines of its output.
//!
//! Most runtimes write the reason first, then the stack and their version: the last line is seldom the reason.

/// Longest quoted line, in characters.
const LONGEST: usize = 300;
/// An error followed by this many meaningful lines is not what ended the program.
const BELOW: usize = 8;

/// The line that gives the reason, from the end of a program's output; `None`: there was no output.
///
/// ```
/// use gaiola_core::cause;
///
/// let tail = "Error: no database\n    at Object.<anonymous> (/app.js:1:42)\n\nNode.js v20.20.2\n";
/// assert_eq!(cause::of(tail).as_deref(), Some("Error: no database"));
/// ```
pub fn of(tail: &str) -> Option<String> {
    let lines: Vec<&str> = tail.lines().map(str::trim_end).collect();
    let candidates: Vec<usize> = (0..lines.len())
        .rev()
        .filter(|at| says_something(lines[*at]))
        .take(BELOW)
        .collect();
    let find = |is: &dyn Fn(usize) -> bool| candidates.iter().copied().find(|at| is(*at));
    let chosen = find(&|at| is_exception(&lines, at))
        .or_else(|| find(&|at| is_error(lines[at])))
        .or_else(|| candidates.first().copied())
        .or_else(|| lines.iter().rposition(|line| !line.is_empty()))?;
    Some(quoted(&lines, chosen))
}

/// The line, and if it ends with a colon the line after it.
fn quoted(lines: &[&str], at: usize) -> String {
    let line = lines[at].trim();
    let mut below = lines[at + 1..].iter().map(|line| line.trim());
    let announced = below.find(|line| !line.is_empty());
    let whole = match announced.filter(|_| line.ends_with(':')) {
        Some(announced) => format!("{line} {announced}"),
        None => line.to_string(),
    };
    whole.chars().take(LONGEST).collect()
}

/// Whether a line is more than a stack frame, a piece of a value, or a runtime's closing line.
fn says_something(line: &str) -> bool {
    const FAREWELLS: [&str; 6] = [
        "Node.js v",
        "note: run with `RUST_BACKTRACE",
        "BEGIN failed--compilation aborted",
        "Emitted 'error' event on ",
        "exit status ",
        "-----",
    ];
    let is_step = line.starts_with(|first: char| first.is_whitespace() || "}])#^~".contains(first));
    let is_native_step = line
        .split_once(": 0x")
        .is_some_and(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()));
    let is_farewell = FAREWELLS.iter().any(|words| line.starts_with(words));
    !line.is_empty() && !is_step && !is_native_step && !is_farewell
}

/// Whether a line is an uncaught exception as runtimes print it.
fn is_exception(lines: &[&str], at: usize) -> bool {
    let line = lines[at];
    const OPENINGS: [&str; 6] = [
        "Caused by: ",
        "Exception in thread ",
        "FATAL ERROR: ",
        "panic: ",
        "fatal error: ",
        "Description:",
    ];
    let opens = OPENINGS.iter().any(|words| line.starts_with(words));
    let panicked = line.starts_with("thread '") && line.contains("' panicked at ");
    opens || panicked || is_of_ruby(line) || is_named(line, at.checked_sub(1).map(|at| lines[at]))
}

/// `NAME: words` or `NAME` alone, where the name is an error's or follows stack frames.
fn is_named(line: &str, above: Option<&str>) -> bool {
    let name = line.split_once(':').map_or(line, |(name, _)| name);
    // Node appends a code: `TypeError [ERR_INVALID_ARG_TYPE]: ...`.
    let name = name.split(" [").next().unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_name = !last.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._$".contains(&byte));
    let is_error = ["Error", "Exception", "Exit", "Interrupt"]
        .iter()
        .any(|end| last.ends_with(end));
    let below_steps = above.is_some_and(|above| above.starts_with("  "));
    is_name && last.starts_with(char::is_uppercase) && (is_error || below_steps)
}

/// `FILE:LINE:in WHERE: words (NAME)`.
fn is_of_ruby(line: &str) -> bool {
    let name = line
        .strip_suffix(')')
        .and_then(|line| line.rsplit_once(" ("));
    let is_class = |name: &str| {
        name.starts_with(char::is_uppercase)
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
    };
    line.contains(":in ") && name.is_some_and(|(_, name)| is_class(name))
}

/// Whether a line calls itself an error.
fn is_error(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["error", "fatal", "critical", "panic"].iter().any(|word| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            let begins = before.is_none_or(|before| !before.is_alphanumeric());
            begins && after.is_none_or(|after| ":] |=".contains(after))
        })
    })
}

#[cfg(test)]
mod tests;
