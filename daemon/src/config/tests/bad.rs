//! A list of what people get wrong, each with the exact words that answer it.

use super::messages;

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
