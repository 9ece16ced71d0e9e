//! The manual page and the completion scripts, made from the description of the command line. Packaging calls these.

use std::io::{self, Write};

use clap::CommandFactory;

use super::args::{Arguments, Shell};

/// roff(7) on `out`.
pub(super) fn man(out: &mut dyn Write) -> io::Result<()> {
    let command = Arguments::command();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).section("8").manual("fieldspool");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    out.write_all(&page)?;
    commands(&command, "fieldspool", out)?;
    out.write_all(REST.as_bytes())
}

/// Every command with its options, on the one page: a technician searches one text.
fn commands(command: &clap::Command, prefix: &str, out: &mut dyn Write) -> io::Result<()> {
    if prefix == "fieldspool" {
        writeln!(out, ".SH COMMANDS")?;
    }
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let name = format!("{prefix} {}", sub.get_name());
        if sub.has_subcommands() {
            commands(sub, &name, out)?;
            continue;
        }
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let places = sub.get_positionals().map(|place| {
            let name = value_name(place);
            if place.is_required_set() { name } else { format!("[{name}]") }
        });
        let title: Vec<String> = std::iter::once(name).chain(places).collect();
        writeln!(out, ".SS \"{}\"\n{}", roff(&title.join(" ")), roff(&about))?;
        for place in sub.get_positionals() {
            let help = place.get_help().map(ToString::to_string).unwrap_or_default();
            writeln!(out, ".TP\n\\fB{}\\fR\n{}", roff(&value_name(place)), roff(&help))?;
        }
        // What is hidden in the help is between the program and itself.
        for argument in sub.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let Some(long) = argument.get_long().filter(|long| !matches!(*long, "help" | "verbose")) else {
                continue;
            };
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let value = argument.get_value_names().filter(|_| argument.get_action().takes_values());
            let value =
                value.and_then(|names| names.first()).map(|name| format!(" {name}")).unwrap_or_default();
            writeln!(out, ".TP\n\\fB\\-\\-{}\\fR{}\n{}", roff(long), roff(&value), roff(&help))?;
        }
        let more = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
        for paragraph in more.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
            let lines: Vec<String> = paragraph.lines().map(roff).collect();
            writeln!(out, ".PP\n{}", lines.join("\n.br\n"))?;
        }
    }
    Ok(())
}

/// How a place is called in the help.
fn value_name(place: &clap::Arg) -> String {
    let name = place.get_value_names().and_then(|names| names.first());
    name.map_or_else(|| place.get_id().as_str().to_uppercase(), ToString::to_string)
}

/// Escapes hyphens and backslashes, and a full stop or quote that would begin a request.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

const REST: &str = r".SH EXIT STATUS
.TP
0
All done.
.TP
64
What was typed makes no sense.
.TP
65
A spool file is damaged (spool verify).
.TP
66
A file, bus, device or point does not exist.
.TP
69
The daemon is not running, or the device that was to be read gave no value.
.TP
73, 74
The disk, the runtime directory or a port cannot be used.
.TP
75
Another fieldspool holds the state directory, or the configuration cannot be read for a reason that may pass by itself.
.TP
77
Not allowed as this user.
.TP
78
The configuration has faults; each is printed with its line and remedy.
.SH FILES
.TP
/etc/fieldspool/*.toml
The configuration; also /usr/lib/fieldspool and /run/fieldspool. Profiles lie in profiles/ below each of them, and below a folder given by
\-\-config. The name of a bus or device is 1 to 64 of A\-Z a\-z 0\-9 _ \-; no two devices of a gateway have one name, on whatever bus, because
readings are sent, stored and shown under it. A label is free text and may repeat.
.TP
/var/lib/fieldspool
The state: stored readings, remembered identity.
.TP
/run/fieldspool/control.sock
How the commands speak to the daemon; root and the group fieldspool may.
.SH METRICS
http://127.0.0.1:8480/metrics, for a Prometheus on this machine or through ssh \-N \-L 8480:127.0.0.1:8480 GATEWAY. On any other address an
invitation is asked for, whose session ends after 12 hours: no way for a scraper. Let listen name 127.0.0.1:8480 beside that address.
.SH SIGNALS
SIGHUP reads the configuration again; a faulty one is refused and the running one kept, and so is one that lacks a folder of the running one, shows what lay under a mount that is gone, or has no file left. An empty file says that nothing is to be read, a restart that what lies under the mount is meant. SIGTERM and SIGINT stop in order within five seconds.
.SH SEE ALSO
systemctl(1), journalctl(1), mosquitto_sub(1)
";

/// A completion script on `out`.
pub(super) fn completions(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    use clap_complete::shells::{Bash, Fish, Zsh};
    let mut command = Arguments::command();
    let mut script = Vec::new();
    match shell {
        Shell::Bash => clap_complete::generate(Bash, &mut command, "fieldspool", &mut script),
        Shell::Fish => clap_complete::generate(Fish, &mut command, "fieldspool", &mut script),
        Shell::Zsh => clap_complete::generate(Zsh, &mut command, "fieldspool", &mut script),
    }
    out.write_all(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each command with the names of its options, as the help of that command shows them.
    fn options(command: &clap::Command, prefix: &str, into: &mut Vec<(String, Vec<String>)>) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            let name = format!("{prefix} {}", sub.get_name());
            if sub.has_subcommands() {
                options(sub, &name, into);
                continue;
            }
            let help = sub.clone().render_long_help().to_string();
            let shown = help.lines().filter_map(|line| {
                let long = line.trim_start().strip_prefix("--")?;
                Some(long.split([' ', '.', '=']).next()?.to_owned())
            });
            into.push((name, shown.collect()));
        }
    }

    #[test]
    fn the_manual_has_every_option_that_the_help_shows_and_no_other() {
        let mut page = Vec::new();
        man(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        let mut commands = Vec::new();
        options(&Arguments::command(), "fieldspool", &mut commands);
        assert!(commands.len() >= 9 && commands.iter().any(|(name, _)| name == "fieldspool spool resend"));
        for (name, mut shown) in commands {
            let after = page.split_once(&format!(".SS \"{}", roff(&name))).expect(&name).1;
            let section = after.split("\n.S").next().unwrap();
            let mut told: Vec<String> = section
                .split("\n\\fB\\-\\-")
                .skip(1)
                .map(|rest| rest.split("\\fR").next().unwrap().replace("\\-", "-"))
                .collect();
            shown.sort();
            told.sort();
            assert_eq!(told, shown, "{name}:\n{section}");
        }
    }

    #[test]
    fn the_manual_names_each_command_of_the_spool_and_what_it_takes() {
        let mut page = Vec::new();
        man(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        for title in [
            r#".SS "fieldspool spool status""#,
            r#".SS "fieldspool spool export""#,
            r#".SS "fieldspool spool resend [RUN] [FIRST\-LAST]""#,
            r#".SS "fieldspool spool verify [FILE]""#,
            ".TP\n\\fBFIRST\\-LAST\\fR\nThe first and the last reading",
            ".TP\n65\nA spool file is damaged",
        ] {
            assert!(page.contains(title), "{title}");
        }
    }
}
