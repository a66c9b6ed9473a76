//! `check --defaults`: every key with type and default, as a file that is itself a valid configuration. Keys that have no
//! default stand behind a `#` with an example.

use std::fmt::Write;

use super::schema::{self, Key, Kind, Need, Section};

/// Column at which comments begin.
const COLUMN: usize = 46;

/// The file.
pub fn print() -> String {
    let mut text = String::from(
        "# Every key of a strowger configuration. A key that is written here without # has that default, unless it says\n\
         # \"required\". A key behind # has no default; its value is an example. See docs/configuration.md.\n",
    );
    for section in schema::sections() {
        let step = section.name == schema::STEP.name;
        let table = if step { None } else { header(section) };
        text.push('\n');
        if step {
            let _ = writeln!(
                text,
                "# A step, where it is written as a table: {{ target = \"manager\", ring = \"15s\" }}. {}",
                section.about
            );
        } else if let Some(header) = table {
            let _ = writeln!(text, "# {}\n{header}", section.about);
        }
        for key in section.keys {
            line(&mut text, key, step);
        }
    }
    text
}

fn header(section: &Section) -> Option<String> {
    let within = |s: &&Section| {
        s.keys.iter().find_map(|k| match &k.kind {
            Kind::Table(inner) if inner.name == section.name => Some(false),
            Kind::Tables(inner) if inner.name == section.name => Some(true),
            _ => None,
        })
    };
    let several = schema::sections().find_map(|s| within(&s))?;
    Some(if several { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) })
}

fn line(text: &mut String, key: &Key, step: bool) {
    if matches!(key.kind, Kind::Table(_) | Kind::Tables(_)) {
        return;
    }
    let (hidden, value, need) = match key.need {
        Need::Required(example) => ("", example, "required; "),
        Need::Default(value) => ("", value, ""),
        Need::Optional(example) => ("# ", example, ""),
    };
    let hidden = if step { "# " } else { hidden };
    let entry = format!("{hidden}{} = {value}", key.name);
    let yet = if key.later.is_some() { " (not yet in force)" } else { "" };
    let _ = writeln!(text, "{entry:COLUMN$} # {need}{}; {}{yet}", key.kind.words(), key.about);
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use std::path::Path;

    #[test]
    fn the_defaults_are_a_valid_configuration() {
        let text = print();
        let config =
            Config::parse(Path::new("defaults.toml"), &text).unwrap_or_else(|r| panic!("{text}\n{}", r.render(false)));
        assert_eq!(config.directory.extensions.len(), 1);
    }

    #[test]
    fn the_reference_lists_every_key() {
        let page = include_str!("../../../docs/configuration.md");
        let listed = page.rsplit_once("```toml\n").and_then(|(_, rest)| rest.split_once("```")).map(|(block, _)| block);
        assert_eq!(listed, Some(print().as_str()), "put the output of `check --defaults` into docs/configuration.md");
    }

    #[test]
    fn the_reference_s_example_is_valid_but_for_its_secrets() {
        let page = include_str!("../../../docs/configuration.md");
        let example = page.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```")).map(|(block, _)| block);
        let example = format!("schema = 1\n{}", example.expect("an example"));
        let report = Config::parse(Path::new("docs.toml"), &example).expect_err("no such secrets");
        let codes: Vec<&str> = report.problems.iter().map(|p| p.code).collect();
        assert_eq!(codes, ["config::secret", "config::secret"], "{}", report.render(false));
    }

    #[test]
    fn every_default_is_valid_for_its_key_and_every_example_too() {
        // With every key shown, all examples are walked over as well; what they name need not exist.
        let all: String = print()
            .lines()
            .map(|l| {
                format!("{}\n", l.strip_prefix("# ").filter(|r| r.contains(" = ") && !r.starts_with("A ")).unwrap_or(l))
            })
            .collect();
        let step = all.find("# A step").expect("steps come last");
        let report = Config::parse(Path::new("all.toml"), &all[..step]).expect_err("examples name what is not there");
        for problem in &report.problems {
            let of_names = [
                "config::unknown_name",
                "config::unknown_target",
                "config::bad_value",
                "config::no_match",
                "config::secret",
                "config::sound",
                "config::hook",
                "config::no_last_route",
            ];
            assert!(of_names.contains(&problem.code), "{}", report.line_of(problem));
        }
    }
}
