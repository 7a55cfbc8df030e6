//! What nextest's JUnit file says of a run, as far as the summary needs it.

/// One test of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// `kvs-edge-tests::broker a_killed_box_is_called_offline`
    pub(crate) name: String,
    pub(crate) failed: bool,
    /// Tries before the one that counts.
    pub(crate) retried: usize,
    /// Why it did nothing: what it printed behind `skipped: `.
    pub(crate) skipped: Option<String>,
}

/// The cases of a file as nextest 0.9 writes it; it holds no CDATA sections, and text is escaped.
pub(crate) fn cases(xml: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for part in xml.split("<testcase ").skip(1) {
        let part = part.split("</testcase>").next().unwrap_or(part);
        let (head, body) = part.split_once('>').unwrap_or((part, ""));
        // Without a body, the next element begins right behind it.
        let body = if head.ends_with('/') { "" } else { body };
        let [class, name] = ["classname", "name"].map(|key| attribute(head, key).unwrap_or_default());
        let marks = |element: &str| body.matches(&format!("<{element} ")).count();
        let skipped = body.lines().find_map(skip);
        let failed = marks("failure") + marks("error") > 0;
        let retried = ["flakyFailure", "flakyError", "rerunFailure", "rerunError"].map(marks).iter().sum();
        let skipped = if failed { None } else { skipped };
        cases.push(Case { name: format!("{class} {name}"), failed, retried, skipped });
    }
    cases
}

/// A line that begins with the word, which may stand behind a tag or `test NAME ... `; elsewhere it means nothing.
fn skip(line: &str) -> Option<String> {
    let line = line.trim_start();
    let line = line.strip_prefix("<system-out>").or(line.strip_prefix("<system-err>")).unwrap_or(line);
    let line = match line.strip_prefix("test ").and_then(|test| test.split_once(" ... ")) {
        Some((_, said)) => said,
        None => line,
    };
    line.strip_prefix("skipped: ").map(unescape)
}

fn attribute(head: &str, key: &str) -> Option<String> {
    let from = format!(" {head}").find(&format!(" {key}=\""))? + key.len() + 2;
    let value = head.get(from..)?;
    Some(unescape(&value[..value.find('"')?]))
}

fn unescape(text: &str) -> String {
    let text = text.split("</system-").next().unwrap_or(text);
    let pairs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shortened from a run of nextest 0.9.148.
    const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4" failures="1" errors="0" uuid="x" timestamp="2026-11-30T07:00:00Z" time="1.0">
    <testsuite name="p::t" tests="4" disabled="0" errors="0" failures="1">
        <testcase name="works" classname="p::t" timestamp="2026-11-30T07:00:00Z" time="0.003">
            <system-out>running 1 test
quotes another: skipped: this and that
test works ... ok
</system-out>
            <system-err></system-err>
        </testcase>
        <testcase name="a::lacks" classname="p::t" timestamp="2026-11-30T07:00:00Z" time="0.003">
            <system-err>skipped: no &lt;x&gt; &amp; y here</system-err>
        </testcase>
        <testcase name="second_try" classname="p::t" timestamp="2026-11-30T07:00:00Z" time="0.1">
            <flakyFailure timestamp="2026-11-30T07:00:00Z" time="0.1" message="m" type="test failure with exit code 101">boom<system-err>thread main panicked</system-err></flakyFailure>
        </testcase>
        <testcase name="fails" classname="p::t" timestamp="2026-11-30T07:00:00Z" time="0.1">
            <failure type="test failure with exit code 101">boom</failure>
            <rerunFailure timestamp="2026-11-30T07:00:00Z" time="0.1" type="test failure with exit code 101">boom</rerunFailure>
        </testcase>
    </testsuite>
</testsuites>"#;

    #[test]
    fn only_the_beginning_of_a_line_says_that_a_test_did_nothing() {
        for line in ["skipped: x", "<system-out>skipped: x</system-out>", "test a::b ... skipped: x"] {
            assert_eq!(skip(line).as_deref(), Some("x"), "{line}");
        }
        for line in ["xtask: skipped: x", "test a::b ... ok", "skipped"] {
            assert_eq!(skip(line), None, "{line}");
        }
    }

    #[test]
    fn failures_retries_and_skips_are_told_apart() {
        let case = |name: &str, failed, retried, skipped: Option<&str>| Case {
            name: format!("p::t {name}"),
            failed,
            retried,
            skipped: skipped.map(str::to_owned),
        };
        let expected = [
            case("works", false, 0, None),
            case("a::lacks", false, 0, Some("no <x> & y here")),
            case("second_try", false, 1, None),
            case("fails", true, 1, None),
        ];
        assert_eq!(cases(XML), expected);
        assert_eq!(cases("<testsuites></testsuites>"), []);
        assert_eq!(cases(r#"<testcase name="x" classname="c" time="0"/>"#)[0].name, "c x");
    }
}
