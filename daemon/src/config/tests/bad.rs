//! A list of what people get wrong, each with the exact words that answer it.

use super::{loaded, messages};

/// The cases of `bad.txt`: a text and its messages.
fn cases() -> Vec<(String, Vec<String>)> {
    let mut cases = vec![(String::new(), Vec::new())];
    for line in include_str!("bad.txt").lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        let Some((text, messages)) = cases.last_mut() else { unreachable!() };
        if line == "----" {
            cases.push((String::new(), Vec::new()));
        } else if let Some(message) = line.strip_prefix("=> ") {
            messages.push(format!("a.toml:{message}"));
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    cases.pop();
    cases
}

#[test]
fn every_fault_is_said_with_place_and_remedy() {
    let cases = cases();
    assert!(cases.len() > 100);
    let mut wrong = Vec::new();
    for (text, expected) in cases {
        let said = messages(&[("a.toml", &text)]);
        if said != expected {
            wrong.push(format!("{text}  said:     {}\n  expected: {}", said.join("\n"), expected.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn all_faults_of_a_file_come_at_once() {
    let all: String = [
        "gatway = \"plant7-gw1\"\n",
        "[spool]\nkeep = \"some\"\n",
        "[bus.a.link.modbus-tcp]\nhost = \"192.0.2.1\"\nprot = 502\n",
        "[bus.a.device]\nm = { unit_id = 300, points = { p = { inputs = 0 }, q = { input = 5, type = \"f23\" } } }\n",
    ]
    .concat();
    let said = messages(&[("a.toml", &all)]).join("\n");
    for word in ["gatway", "some", "prot", "300", "inputs", "f23"] {
        assert!(said.contains(word), "{word} is missing in:\n{said}");
    }
}

#[test]
fn what_a_syntax_error_swallowed_is_not_called_missing() {
    let text =
        "[bus.a.link.modbus-tcp]\nhost = \"h\"\n[bus.a.device.m]\npoints.p = { input = 0 }\nunit_id 1\n";
    let said = messages(&[("a.toml", text)]);
    assert_eq!(said, ["a.toml:5:9: a key without a value; write key = value"]);
}

#[test]
fn a_message_is_one_short_line_whatever_stood_in_the_file() {
    let long = "x".repeat(10_000);
    let texts = [
        format!("\"{long}\" = 1\n"),
        format!("gateway = \"{long}\"\n"),
        format!("[bus.\"{long}\"]\nperiod = \"{long}\"\n"),
        format!(
            "[bus.a.link.modbus-tcp]\nhost = \"h\"\n[bus.a.device]\n\"<b>\\\"{long}\" = {{ unit_id = 1, label = \"{long}\" }}\n"
        ),
        "\"a\\nb\\u001b[31m\" = 1\n".to_owned(),
        format!("gateway = {long}\n"),
    ];
    for text in texts {
        let said = messages(&[("a.toml", &text)]);
        assert!(!said.is_empty());
        for message in said {
            assert!(message.len() < 600 && !message.chars().any(char::is_control), "{message:?}");
        }
    }
}

#[test]
fn a_character_that_nobody_sees_is_named_and_pointed_to() {
    let cases = [
        ("gateway = \"a\u{1b}b\"\n", "1:13: a control character (U+001B); remove it"),
        ("gateway = \"a\0b\"\n", "1:13: a control character (U+0000); remove it"),
        ("\u{0}\n", "1:1: a control character (U+0000); remove it"),
        ("# a comment \u{7}\n", "1:13: a control character (U+0007); remove it"),
        ("gateway\u{a0}= \"gw\"\n", "1:8: a no-break space (U+00A0); write a plain space instead"),
        ("gateway =\u{a0}\"gw\"\n", "1:10: a no-break space (U+00A0); write a plain space instead"),
        ("gate\u{200b}way = \"gw\"\n", "1:5: an invisible character (U+200B); remove it"),
        (
            "trust_rtc = true\rpage = false\r",
            "1:17: a carriage return (U+000D) within a line; save the file with line ends of Unix (LF)",
        ),
        // In a text it is no fault, and not what is wrong with this line.
        ("[page]\nnames = [\"a\u{a0}b\"\n", "2:"),
    ];
    for (text, expected) in cases {
        let said = messages(&[("a.toml", text)]);
        assert!(said[0].starts_with(&format!("a.toml:{expected}")), "{text:?}: {said:?}");
        assert!(expected == "2:" || said.len() == 1, "{said:?}");
        assert!(!said[0].contains("no-break") || text.starts_with('g'), "{said:?}");
    }
    let windows = messages(&[("a.toml", "trust_rtc = true\r\ngatway = \"x\"\r\n")]);
    assert_eq!(
        windows,
        ["a.toml:2:1: unknown key \"gatway\"; did you mean \"gateway\"?"],
        "these are line ends"
    );
}

#[test]
fn what_is_probably_not_meant_is_a_warning_and_leaves_a_configuration() {
    let bus = |period: &str, speed: u32| {
        format!(
            "[bus.a]\nperiod = \"{period}\"\n[bus.a.link.modbus-rtu]\nport = \"/dev/ttyS9\"\nspeed = {speed}\n\
             [bus.a.device]\nm = {{ unit_id = 1, points.p = {{ input = 0 }} }}\n"
        )
    };
    let cases = [
        (bus("1s", 9_600), None),
        (
            bus("1s", 9_601),
            Some("a.toml:5:9: bus.a.link.modbus-rtu.speed: 9601 is not a usual speed; did you mean 9600?"),
        ),
        (bus("1s", 11_520), Some("did you mean 9600?")),
        (bus("100ms", 9_600), None),
        (
            bus("45ms", 9_600),
            Some("a.toml:2:10: bus.a.period: polling takes 87 % of the line's time; poll less often"),
        ),
    ];
    for (text, expected) in cases {
        let (folder, loaded) = loaded(&[("a.toml", &text)]);
        let prefix = format!("{}/", folder.path().display());
        let said: Vec<String> =
            loaded.warnings.iter().map(|warning| warning.to_string().replace(&prefix, "")).collect();
        assert!(loaded.config.is_some(), "{:?}", loaded.faults);
        assert_eq!(said.len(), usize::from(expected.is_some()), "{text} {said:?}");
        assert!(said.iter().all(|said| said.contains(expected.unwrap_or_default())), "{text} {said:?}");
    }
}
