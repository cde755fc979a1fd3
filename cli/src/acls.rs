//! `waybill topics acls`: what each role may do, as the commands that Kafka's own tool takes.

use crate::config::Config;
use crate::exit::Ended;
use clap::Args as ClapArgs;
use std::fmt::Write as _;
use waybill_topics::{Catalogue, Grant, Groups, grants, roles};

/// Whose rights, and what the cluster calls them.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Only these: stages, gateway, operator, external, reader (looks only), deploy (topics apply) [default: all]
    roles: Vec<String>,
    /// What a role is called on the cluster; for certificates for example 'User:CN={role}'
    #[arg(long, default_value = "User:{role}", value_name = "TEXT")]
    principal: String,
}

/// Prints the commands; asks no broker.
pub fn acls(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    let catalogue = Catalogue::built_in()?;
    let known = roles(&catalogue);
    for role in &args.roles {
        anyhow::ensure!(known.contains(role), "there is no role {role}: there are {}", known.join(", "));
    }
    anyhow::ensure!(
        args.principal.contains("{role}"),
        "--principal must have {{role}} in it: each role is somebody else"
    );
    let kafka = config.kafka();
    print!("{}", script(grants(&catalogue, &kafka.prefix), kafka.servers(), args));
    Ok(Ended::Done)
}

fn script(grants: Vec<Grant>, servers: &str, args: &Args) -> String {
    let mut text = "# What each role may do, by topics.yaml. For a shell that finds kafka-acls.sh, as somebody who may give rights:\n\
        #   waybill topics acls | sh -es -- --command-config admin.properties\n\
        # Rights that are there already stay. None is taken away: kafka-acls.sh --list shows all.\n"
        .to_owned();
    for mut grant in grants {
        grant.roles.retain(|role| args.roles.is_empty() || args.roles.contains(role));
        if grant.roles.is_empty() {
            continue;
        }
        let mut words = vec![("--bootstrap-server", servers.to_owned())];
        words.extend(grant.roles.iter().map(|role| ("--allow-principal", args.principal.replace("{role}", role))));
        words.extend(grant.operations.iter().map(|operation| ("--operation", (*operation).to_owned())));
        words.extend(grant.topics.into_iter().map(|topic| ("--topic", topic)));
        let pattern = match grant.groups {
            Groups::None => "literal",
            Groups::One(group) => {
                words.push(("--group", group));
                "literal"
            }
            Groups::Prefixed(group) => {
                words.push(("--group", group));
                "prefixed"
            }
        };
        words.push(("--resource-pattern-type", pattern.to_owned()));
        let words: Vec<String> =
            words.into_iter().map(|(option, value)| format!("{option} {}", quoted(&value))).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n# {}\nkafka-acls.sh --add {} \"$@\"", grant.roles.join(", "), words.join(" "));
    }
    text
}

/// As one word of a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_its_own_commands_and_a_name_stays_one_word() {
        let catalogue = Catalogue::built_in().unwrap();
        let args = Args { roles: vec!["pack".to_owned()], principal: "User:CN={role},O=Shop & 'Sons'".to_owned() };
        let script = script(grants(&catalogue, "t."), "b:1", &args);
        let commands: Vec<&str> = script.lines().filter(|line| line.starts_with("kafka-acls.sh")).collect();
        let who = r"--bootstrap-server 'b:1' --allow-principal 'User:CN=pack,O=Shop & '\''Sons'\'''";
        let write =
            "--operation 'Write' --topic 't.orders.packed' --topic 't.dead.pack' --resource-pattern-type 'literal'";
        let read = "--operation 'Read' --topic 't.orders.picked' --topic 't.redrive.pack' --group 't.waybill.pack' \
                    --resource-pattern-type 'literal'";
        let expected = [write, read].map(|what| format!("kafka-acls.sh --add {who} {what} \"$@\""));
        assert_eq!(commands, expected);
    }
}
